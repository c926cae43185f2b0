"""How fast finished stages were: times that a forecast goes by, rather than by peak figures."""

import re
from collections.abc import Iterator
from typing import Any

from lola.core.errors import DataError
from lola.storage.remote import AnyPath
from lola.storage.stages import Kind, read_manifests
from lola.training.config import TrainingConfig
from lola.workflows.model_shape import ModelShape


class MeasuredSpeeds:
    """The finished stages of a storage root.

    Arguments:
        dataset: The fingerprint of the data; of data that do not exist yet nothing has been measured.
    """

    def __init__(self, root: AnyPath, dataset: str) -> None:
        self.root, self.dataset = root, dataset
        self.read: dict[Kind, list[dict[str, Any]]] = {}

    def step(self, shape: ModelShape, training: TrainingConfig, device: str) -> float | None:
        """Seconds of a training step, the fastest of those that count.

        Arguments:
            shape: The model, as it was built.
            training: How it is trained: batch size, precision, optimiser, workers and GPUs count, not length,
                seed or learning rate.
            device: The kind of the workers' devices.
        """
        wanted = (training.batch_size, training.precision, training.optimizer.name)
        own = {"type": type(shape.model).__name__, **shape.model.to_json()}
        found = []
        for manifest in (*self._manifests("autoencoders"), *self._manifests("emulators")):
            speed, trained = manifest.get("speed", {}), manifest["config"].get("training", {})
            if not speed or (speed["device"], speed["workers"]) != (device, training.most_workers):
                continue
            if speed.get("gpus", training.gpus) != training.gpus:  # a share of one is slower
                continue
            what = trained["batch_size"], trained["precision"], trained["optimizer"]["name"]
            if what == wanted and manifest["model"] == own and manifest["sizes"] == shape.sizes:
                found.append(speed["seconds_per_step"])
        return min(found, default=None)

    def encoding(self, what: str) -> float | None:
        """Seconds per state of an encoder on CPUs whose cache has this name."""
        speeds = [m.get("speed", {}) for m in self._manifests("latents") if m["what"] == what]
        found = [speed["seconds_per_state"] for speed in speeds if speed and not speed["gpus"]]
        return min(filter(None, found), default=None)

    def evaluation(self, what: str) -> float:
        """Seconds per state and member of an evaluation of this name on CPUs; 0 if there is none.

        Trainings with other seeds give models that take as long.
        """
        own = _without_seed(what)
        evaluations = self._manifests("evaluations")
        found = [m["seconds_per_state"] for m in evaluations if _without_seed(m["what"]) == own]
        return min(found, default=0.0)

    def manifest(self, kind: Kind, fingerprint: str) -> dict[str, Any]:
        """The manifest of a finished stage.

        Raises:
            DataError: There is none.
        """
        for manifest in self._read(kind):
            if manifest["fingerprint"] == fingerprint:
                return manifest
        raise DataError(f"{self.root / kind} has no finished stage with the fingerprint {fingerprint[:8]}")

    def _manifests(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """Those of finished stages on the same data."""
        known = self._read(kind) if self.dataset else ()
        return (manifest for manifest in known if manifest["inputs"].get("dataset") == self.dataset)

    def _read(self, kind: Kind) -> list[dict[str, Any]]:
        if kind not in self.read:
            self.read[kind] = [manifest for _, manifest in read_manifests(self.root, kind)]
        return self.read[kind]


def _without_seed(what: str) -> str:
    """The name of a stage without its training seed."""
    return re.sub(r"-seed\d+", "", what)
