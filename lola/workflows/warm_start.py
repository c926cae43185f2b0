"""Emulators that start from the weights of a finished stage, of the same sweep or of an earlier one.

The stage is an input: a model that starts from other weights is another stage. Parameters are copied by name;
those that only one of the networks has are listed in the record of the training.
"""

import dataclasses
from typing import Any

import torch

from lola.core.config import require
from lola.models.emulator_config import EmulatorConfig
from lola.storage.registry import find_emulator
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage, read_manifest
from lola.training.checkpoint import Transfer
from lola.workflows.model_shape import read_model_config


@dataclasses.dataclass(frozen=True)
class Source:
    """A stage that a model starts from.

    Arguments:
        model, sizes: Its model's configuration, and the arguments of its `build`.
        stage: The stage, if it is one of the same plan.
    """

    folder: AnyPath
    fingerprint: str
    model: Any
    sizes: dict[str, int]
    stage: Stage | None = None

    @classmethod
    def find(cls, root: AnyPath, reference: str) -> "Source":
        """A finished emulator; references and errors are those of `find_emulator`."""
        folder = find_emulator(root, reference)
        manifest = read_manifest(folder)
        return cls(folder, manifest["fingerprint"], read_model_config(manifest), manifest["sizes"])

    def check(self, model: EmulatorConfig, sizes: dict[str, int], option: str) -> None:
        """Raise `ConfigError`, naming the option, unless a model can start from it."""
        with torch.device("meta"):
            source, target = self.model.build(**self.sizes), model.build(**sizes)
        conflict = Transfer.between(source.state_dict(), target.state_dict()).conflict
        require(not conflict, f"{option} {self.folder.name} is of another network: {conflict}")
