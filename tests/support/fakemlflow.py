"""MLflow in memory: the calls of its client that are used here, with the semantics of its database store.

`Unreliable` fails calls at random, before or after they were applied, as a network does.
"""

import itertools
import random
import re
import time
from pathlib import Path
from types import SimpleNamespace

from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

CONDITION = re.compile(r"tags\.`([^`]+)` = '([^']*)'")


class Page(list):
    token = None


def refuse(text, code):
    raise MlflowException(text, error_code=getattr(codes, code))


class FakeMlflow:
    """A server, and the client that talks to it."""

    def __init__(self):
        self.experiments, self.runs, self.models = {}, {}, {}
        self._ids = itertools.count(1)
        self.calls = []  # the numbers of metrics, parameters and tags of each batch

    def _run(self, run_id, active=True):
        if run_id not in self.runs:
            refuse(f"Run with id={run_id} not found", "RESOURCE_DOES_NOT_EXIST")
        run = self.runs[run_id]
        if active and run.lifecycle != "active":
            refuse(f"The run {run_id} must be in the 'active' state", "INVALID_PARAMETER_VALUE")
        return run

    def search_experiments(self, max_results=None):
        return [each for each in self.experiments.values() if each.lifecycle_stage == "active"]

    def get_experiment_by_name(self, name):
        return next((each for each in self.experiments.values() if each.name == name), None)

    def create_experiment(self, name, artifact_location=None):
        if self.get_experiment_by_name(name):
            refuse(f"Experiment(name={name}) already exists", "RESOURCE_ALREADY_EXISTS")
        key = str(next(self._ids))
        self.experiments[key] = SimpleNamespace(
            experiment_id=key, name=name, lifecycle_stage="active", tags={}
        )
        return key

    def set_experiment_tag(self, key, name, value):
        if self.experiments[key].lifecycle_stage != "active":
            refuse(f"The experiment {key} must be in the 'active' state", "INVALID_PARAMETER_VALUE")
        self.experiments[key].tags[name] = value

    def delete_experiment(self, key):
        self.experiments[key].lifecycle_stage = "deleted"
        for run in self.runs.values():
            if run.experiment == key:
                run.lifecycle = "deleted"

    def restore_experiment(self, key):
        self.experiments[key].lifecycle_stage = "active"
        for run in self.runs.values():
            if run.experiment == key:
                run.lifecycle = "active"

    def create_run(self, experiment, run_name=None, tags=None, start_time=None):
        if self.experiments[experiment].lifecycle_stage != "active":
            refuse(f"The experiment {experiment} must be in the 'active' state", "INVALID_PARAMETER_VALUE")
        key = f"{next(self._ids):032x}"
        self.runs[key] = SimpleNamespace(
            **{"key": key, "experiment": experiment, "name": run_name, "tags": dict(tags), "params": {}},
            **{"metrics": {}, "datasets": {}, "status": "RUNNING", "start": start_time, "end": None},
            **{"artifacts": {}, "lifecycle": "active"},
        )
        return self.get_run(key)

    def get_run(self, key):
        run = self._run(key, active=False)
        info = SimpleNamespace(
            **{"run_id": key, "experiment_id": run.experiment, "artifact_uri": f"fake://{key}"},
            **{"status": run.status, "start_time": run.start},
            **{"end_time": run.end, "lifecycle_stage": run.lifecycle, "run_name": run.name},
        )
        datasets = [
            SimpleNamespace(dataset=SimpleNamespace(name=name, digest=digest))
            for name, digest in run.datasets
        ]
        data = SimpleNamespace(tags=dict(run.tags), params=dict(run.params))
        return SimpleNamespace(info=info, data=data, inputs=SimpleNamespace(dataset_inputs=datasets))

    def search_runs(self, experiments, query, max_results=1000, page_token=None):
        wanted = CONDITION.findall(query)
        return Page(
            self.get_run(key)
            for key, run in self.runs.items()
            if run.lifecycle == "active"
            and run.experiment in experiments
            and all(run.tags.get(name) == value for name, value in wanted)
        )

    def delete_run(self, key):
        self._run(key).lifecycle = "deleted"

    def log_batch(self, key, metrics=(), params=(), tags=()):
        assert len(metrics) + len(params) + len(tags) <= 1000
        assert len(params) <= 100
        assert len(tags) <= 100
        run = self._run(key)
        self.calls.append((len(metrics), len(params), len(tags)))
        for param in params:
            if run.params.get(param.key, param.value) != param.value:
                refuse("Changing param values is not allowed", "INVALID_PARAMETER_VALUE")
        run.params |= {param.key: param.value for param in params}
        for metric in metrics:  # a doubled point would be doubled in other stores
            run.metrics.setdefault(metric.key, []).append(metric)
        run.tags |= {tag.key: tag.value for tag in tags}

    def get_metric_history(self, key, name):
        return list(self._run(key, active=False).metrics.get(name, []))

    def update_run(self, key, status):
        self._run(key).status = status

    def set_terminated(self, key, status, end_time):
        run = self._run(key)
        run.status, run.end = status, end_time

    def log_artifact(self, key, path, folder=None):
        run = self._run(key, active=False)
        run.artifacts["/".join(filter(None, [folder, Path(path).name]))] = Path(path).read_bytes()

    def log_artifacts(self, key, path, folder):
        run = self._run(key, active=False)
        for file in filter(Path.is_file, Path(path).rglob("*")):
            run.artifacts[f"{folder}/{file.relative_to(path)}"] = file.read_bytes()

    def log_inputs(self, key, inputs):
        for each in inputs:
            self._run(key).datasets[each.dataset.name, each.dataset.digest] = each

    def create_registered_model(self, name):
        if name in self.models:
            refuse(f"Registered Model (name={name}) already exists", "RESOURCE_ALREADY_EXISTS")
        self.models[name] = SimpleNamespace(versions=[], aliases={})

    def create_model_version(self, name, source, run_id=None, tags=None):
        versions = self.models[name].versions
        versions.append(
            SimpleNamespace(
                **{"name": name, "version": len(versions) + 1, "source": source, "run_id": run_id},
                **{"tags": dict(tags or {}), "creation_timestamp": int(time.time() * 1000)},
            )
        )
        return versions[-1]

    def search_model_versions(self, query):
        name = re.fullmatch(r"name='([^']*)'", query)[1]
        return Page(self.models[name].versions if name in self.models else [])

    def set_registered_model_alias(self, name, alias, version):
        self.models[name].aliases[alias] = version


class Unreliable:
    """Calls of a client, of which a share fails, before or after it was applied.

    Arguments:
        client: The client.
    """

    def __init__(self, client):
        self.client = client
        self.share, self.random = 0.0, random.Random(0)

    def fail(self, share, seed):
        self.share, self.random = share, random.Random(seed)

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*arguments, **options):
            fails = self.random.random() < self.share
            if fails and self.random.random() < 0.5:
                raise ConnectionError("the request was lost")
            result = method(*arguments, **options)
            if fails:
                raise ConnectionError("the answer was lost")
            return result

        return call
