"""Integrators of the reverse process (Eq. 2 with eta = 0, the probability-flow ODE), by azula.

`adams_bashforth` extrapolates the noise `z = (x_t - alpha d(x_t)) / sigma` as a polynomial in sigma / alpha
through the last `order` steps. Times are uniform from 1 to 0.
"""

import dataclasses
from typing import Literal, get_args

from azula.denoise import Denoiser
from azula.sample import Sampler, zABSampler

from lola.config import Config, require

SamplerName = Literal["adams_bashforth"]
SAMPLERS: dict[SamplerName, type[Sampler]] = {"adams_bashforth": zABSampler}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig(Config):
    """How the reverse process is integrated.

    Arguments:
        name: The method.
        order: Its order.
        steps: Solver steps, each one evaluation of the network.
    """

    name: SamplerName = "adams_bashforth"
    order: int = 3
    steps: int = 16

    def validate(self) -> None:
        require(self.name in get_args(SamplerName), f"no sampler is called {self.name!r}")
        require(self.order >= 1, f"order must be at least 1, not {self.order}")
        require(self.steps >= 1, f"steps must be at least 1, not {self.steps}")

    def build(self, denoiser: Denoiser) -> Sampler:
        """The sampler of a denoiser: call it with noise at t = 1 to draw."""
        return SAMPLERS[self.name](denoiser, order=self.order, steps=self.steps, silent=True)
