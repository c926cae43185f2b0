"""Models that start from the weights of a finished stage, of the same sweep or of an earlier one.

The stage is an input: a model that starts from other weights is another stage. Parameters are copied by name;
those that only one of the networks has, or that have other shapes in both, are listed in the record of the
training.
"""

import dataclasses
import re
from typing import Any

import torch

from lola.core.config import require
from lola.storage.registry import ModelKind, find_stage
from lola.storage.remote import AnyPath, to_path
from lola.storage.stages import Stage, read_manifest
from lola.training.checkpoint import Transfer
from lola.workflows.model_shape import read_model_config

VERSIONED = r"runs:/.+|models:/[^/@]+/\d+"


@dataclasses.dataclass(frozen=True)
class Source:
    """A stage that a model starts from.

    Arguments:
        option: The options of the model that starts from it, such as `diffusion`.
        model, sizes: Its model's configuration, and the arguments of its `build`.
        stage: The stage, if it is one of the same plan.
    """

    option: str
    folder: AnyPath
    fingerprint: str
    model: Any
    sizes: dict[str, int]
    stage: Stage | None = None

    @classmethod
    def find(cls, root: AnyPath, reference: str, kind: ModelKind, option: str) -> "Source":
        """A finished stage; references and errors are those of `find_stage`.

        Raises:
            ConfigError: The reference is to whichever model of a name is the newest, which changes.
        """
        folder = find_stage(root, reference, kind)
        manifest = read_manifest(folder)
        fingerprint = manifest["fingerprint"]
        require(
            reference == folder.name
            or fingerprint.startswith(reference)
            or (to_path(reference) / "manifest.json").exists()
            or bool(re.fullmatch(VERSIONED, reference)),
            f"--{option}.warm-start {reference} is the newest model of that name, another one after the next "
            f"training; name {folder.name}",
        )
        return cls(option, folder, fingerprint, read_model_config(manifest), manifest["sizes"])

    def check(self, model: Any, sizes: dict[str, int]) -> None:
        """Raise `ConfigError` unless a model, by its configuration and sizes, can start from it."""
        with torch.device("meta"):
            source, target = self.model.build(**self.sizes), model.build(**sizes)
        conflict = Transfer.between(source.state_dict(), target.state_dict()).conflict
        name = self.folder.name
        require(not conflict, f"--{self.option}.warm-start {name} is of another network: {conflict}")
        source, target = (getattr(one, "predicts", None) for one in (self.model, model))
        require(
            source == target,
            f"--{self.option}.warm-start {name} predicts the {source}, and its weights make no {target}; "
            "choose the same --predicts",
        )
