"""The configuration of an ensemble of trajectories."""

import dataclasses
import math
from typing import Annotated

import tyro

from lola.core.config import Config, Distinct, NonNegativeInt, Size, Within, require, runtime_field
from lola.core.errors import ConfigError
from lola.emulation.inference_config import InferenceConfig, Weights
from lola.emulation.sampling_config import SamplerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleConfig(Config):
    """An ensemble to emulate: the emulator, the initial states and the length.

    Arguments:
        emulator: A stage's folder, name or fingerprint, runs:/RUN_ID, models:/NAME/VERSION, or the name of a
            registered model.
        initial: The Well file that holds the initial states: a path or a URL.
        trajectories: Numbers of its trajectories.
        start: The first known state.
        context: Known states.
        states: States to emulate; without it, as many as the file has.
        stride: Simulation steps between states; by default those that the emulator was trained at, of an
            imported one those of the physical system.
        overlap: States that a window shares with the one before.
        backward: Whether to emulate what came before the known states.
        members: Members of each trajectory; a neural solver has one.
        parameters: Constants of the simulation other than the file's, as NAME=VALUE.
        weights: The emulator's weights: those trained, or their moving average.
        sampler: How a diffusion model is sampled.
        inference: How the networks are run.
        seed: Seeds the members.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
        device: Where the networks run: cpu, cuda, cuda:1; without it, the first GPU if there is one.
        overwrite: Replace the output file if it exists.
    """

    emulator: tyro.conf.Positional[str]
    initial: tyro.conf.Positional[str]
    trajectories: Distinct[NonNegativeInt] = (0,)
    start: NonNegativeInt = 0
    context: Size = 1
    states: Annotated[int, Within("[1, 1e6]")] | None = None
    stride: Annotated[int, Within("[1, 1e9]")] | None = None
    overlap: Size = 1
    backward: bool = False
    members: Size = 16
    parameters: tuple[str, ...] = ()
    weights: Weights = "raw"
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    seed: int = 0
    storage: str | None = runtime_field(None)
    device: str | None = runtime_field(None)
    overwrite: bool = runtime_field(False)

    def validate(self) -> None:
        self.overrides()
        check_device(self.device)

    def overrides(self) -> dict[str, float]:
        """The constants that differ from the file's, by name."""
        values = {}
        for text in self.parameters:
            name, _, value = text.partition("=")
            require(name not in values, f"--parameters contains {name} more than once")
            try:
                values[name] = float(value)
            except ValueError:
                raise ConfigError(f"--parameters takes NAME=VALUE, not {text!r}") from None
            require(math.isfinite(values[name]), f"--parameters: {name} cannot be {value}")
        return values


def check_device(name: str | None) -> None:
    """Raise `ConfigError` unless a device of that name, such as `cuda:1`, exists."""
    if name is None:
        return
    kind, colon, number = name.partition(":")
    known = kind in ("cpu", "cuda") and (not colon or number.isdecimal())
    require(known, f"--device must be cpu, cuda or, of several GPUs, such as cuda:1, not {name!r}")
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    exists = int(number or 0) < (gpus if kind == "cuda" else 1)
    require(exists, f"--device {name} does not exist: this machine has {gpus} GPUs that torch can use")
