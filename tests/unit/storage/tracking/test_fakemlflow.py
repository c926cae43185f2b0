"""The server in memory behaves as MLflow's database does."""

import pytest
from fakemlflow import FakeMlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from lola.storage.tracking import tracking_uri
from lola.storage.tracking.run_copy import _dataset


def script(client, folder):
    """The calls that are used, with what they answer and refuse."""
    said = []

    def refused(call, *arguments, **options):
        try:
            call(*arguments, **options)
        except MlflowException as error:
            said.append(error.error_code)
        else:
            said.append("taken")

    def search():
        found = client.search_runs([experiment], "tags.`lola.sweep` = 's'", max_results=10)
        return [run.info.run_id == key for run in found]

    assert client.get_experiment_by_name("lola/x") is None
    experiment = client.create_experiment("lola/x", artifact_location=f"file://{folder}/artifacts")
    refused(client.create_experiment, "lola/x")
    tags = {"lola.sweep": "s", "lola.fingerprint": "f"}
    key = client.create_run(experiment, run_name="one", tags=tags, start_time=1).info.run_id
    two = client.create_run(experiment, run_name="two", tags={"lola.sweep": "t"}, start_time=2).info.run_id
    client.log_batch(key, metrics=[Metric("a", 1.0, 5, 0), Metric("a", 2.0, 6, 1)], tags=[RunTag("t", "1")])
    client.log_batch(key, params=[Param("p", "1")])
    client.log_batch(key, params=[Param("p", "1")], tags=[RunTag("t", "2")])
    refused(client.log_batch, key, params=[Param("p", "2")])
    for _ in range(2):
        client.log_inputs(key, [_dataset({"name": "d", "digest": "0", "source": "x", "context": "training"})])
    (folder / "file").write_text("1")
    client.log_artifact(key, str(folder / "file"), "model")
    client.set_terminated(key, "FINISHED", end_time=9)
    client.update_run(key, status="RUNNING")
    refused(client.create_registered_model, "m")
    refused(client.create_registered_model, "m")
    version = client.create_model_version("m", f"file://{folder}", run_id=key, tags={"lola.trained": "3"})
    client.set_registered_model_alias("m", "latest-trained", version.version)
    said.append([(v.version, v.run_id == key, v.tags) for v in client.search_model_versions("name='m'")])
    said.append(list(client.search_model_versions("name='unknown'")))
    run = client.get_run(key)
    said += [run.info.status, run.info.start_time, run.info.end_time, run.data.params, run.data.tags["t"]]
    said.append([(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs])
    said.append(
        [(metric.step, metric.value, metric.timestamp) for metric in client.get_metric_history(key, "a")]
    )
    said.append(client.get_metric_history(key, "unknown"))
    said.append(search())
    client.delete_run(key)
    said.append(search())
    for call in (client.log_batch, client.log_batch):
        refused(call, key, tags=[RunTag("t", "3")])
    refused(client.log_batch, key, metrics=[Metric("a", 1.0, 5, 7)])
    refused(client.update_run, key, status="RUNNING")
    refused(client.set_terminated, key, "FINISHED", end_time=9)
    refused(client.get_run, "0" * 32)
    client.delete_experiment(experiment)
    said.append(client.get_experiment_by_name("lola/x").lifecycle_stage)
    refused(client.create_run, experiment, tags={})
    refused(client.log_batch, two, tags=[RunTag("t", "3")])
    client.restore_experiment(experiment)
    said += [search(), client.get_run(two).info.lifecycle_stage]
    return said


@pytest.mark.filterwarnings("ignore")
def test_the_server_in_memory_answers_as_the_database_does(storage):
    uri = tracking_uri(storage)
    (storage / "memory").mkdir()
    assert script(FakeMlflow(), storage / "memory") == script(MlflowClient(uri, registry_uri=uri), storage)
