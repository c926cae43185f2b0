"""How networks are run where they do not learn."""

import dataclasses
from typing import Literal

from lola.core.config import Config, Count, require, runtime_field
from lola.training.precision import Precision

Weights = Literal["raw", "ema"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig(Config):
    """How networks are run where they do not learn.

    Arguments:
        precision: The type of the networks' products and convolutions.
        rows: Windows completed at once: rows of a rollout, trajectories times members.
        states: States encoded or decoded at once.
        compile: Whether the emulator's network is compiled, and on GPUs the autoencoder (on CPUs it takes
            minutes and gains nothing), at the first window of each shape. Where nothing can compile them,
            they run as they are.
        graphs: Whether GPUs replay compiled networks as CUDA graphs.
    """

    precision: Precision = "float32"
    rows: Count = runtime_field(64)
    states: Count = runtime_field(64)
    compile: bool = runtime_field(False)
    graphs: bool = runtime_field(False)

    def validate(self) -> None:
        require(self.compile or not self.graphs, "--graphs are made of compiled networks; give --compile too")
