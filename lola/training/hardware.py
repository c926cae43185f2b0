"""The GPU that costs are estimated for."""

import dataclasses
from typing import Annotated

from lola.core.config import Config, Fraction, Positive, Within
from lola.training.precision import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware(Config):
    """A GPU; the defaults are the H100 SXM's published figures, without sparsity.

    Arguments:
        bfloat16: Peak operations per second in bfloat16.
        float32: Peak operations per second in float32.
        memory: Bytes of memory.
        bandwidth: Bytes per second to and from memory.
        utilisation: The fraction of the peak that training reaches: an assumption where nothing is known.
        reserve: The fraction of memory that is kept free.
    """

    bfloat16: Positive = 989e12
    float32: Positive = 67e12
    memory: Positive = 80e9
    bandwidth: Positive = 3.35e12
    utilisation: Annotated[float, Within("(0, 1]")] = 0.4
    reserve: Fraction = 0.1

    def peak_flops(self, precision: Precision) -> float:
        return self.bfloat16 if precision == "bfloat16" else self.float32
