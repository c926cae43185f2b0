"""How fast finished stages were: times that a forecast goes by, rather than by peak figures."""

from collections.abc import Iterator
from typing import Any

from lola.storage.remote import AnyPath
from lola.storage.stages import Stage, read_manifests
from lola.workflows.forecast.training_costs import Job
from lola.workflows.plan import Plan


class Measured:
    """The finished stages of a storage root.

    Arguments:
        root: The storage root.
        plan: The plan of the sweep; None where there are no data yet, and nothing can have been measured.
    """

    def __init__(self, root: AnyPath, plan: Plan | None) -> None:
        self.root, self.plan = root, plan
        self.read: dict[str, list[dict[str, Any]]] = {}
        self.stages: dict[tuple[str, str], Stage] = {}
        if plan is not None:
            stages = (step.stage for trial in plan.trials for step in trial.steps)
            self.stages = {(stage.kind, stage.what): stage for stage in stages}

    def finished(self, kind: str, what: str) -> bool:
        """Whether a stage of the sweep is."""
        stage = self.stages.get((kind, what))
        return stage is not None and stage.finished

    def step(self, job: Job, device: str) -> float | None:
        """Seconds of a training step, the fastest of those that count.

        Arguments:
            job: What is trained: its model, batch size, precision, optimiser and workers count, not its
                length, its seed or its rate.
            device: The kind of the workers' devices.
        """
        training = job.training
        wanted = (training.batch_size, training.precision, training.optimizer.name)
        found = []
        for manifest in self._manifests("autoencoders" if job.kind == "autoencoder" else "emulators"):
            speed, trained = manifest.get("speed", {}), manifest["config"].get("training", {})
            if not speed or (speed["device"], speed["workers"]) != (device, training.most_workers):
                continue
            what = trained["batch_size"], trained["precision"], trained["optimizer"]["name"]
            own = {"type": type(job.model).__name__, **job.model.what()}
            if what == wanted and manifest["model"] == own and manifest["sizes"] == dict(job.sizes):
                found.append(speed["seconds_per_step"])
        return min(found, default=None)

    def encoding(self, what: str) -> float | None:
        """Seconds per state of an encoder on CPUs whose cache has this name."""
        speeds = [m.get("speed", {}) for m in self._manifests("latents") if m["what"] == what]
        found = [speed["seconds_per_state"] for speed in speeds if speed and not speed["gpus"]]
        return min(filter(None, found), default=None)

    def evaluation(self, what: str) -> float:
        """Seconds per state and member of an evaluation of this name on CPUs; 0 if there is none."""
        found = [m["seconds_per_state"] for m in self._manifests("evaluations") if m["what"] == what]
        return min(found, default=0.0)

    def _manifests(self, kind: str) -> Iterator[dict[str, Any]]:
        """Those of finished stages on the sweep's own data."""
        if self.plan is None:
            return
        if kind not in self.read:
            self.read[kind] = [manifest for _, manifest in read_manifests(self.root, kind)]
        for manifest in self.read[kind]:
            if manifest["inputs"].get("dataset") == self.plan.dataset:
                yield manifest
