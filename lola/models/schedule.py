r"""Noise schedules and the times at which they are trained (Section 2, Eq. 1).

A schedule gives the scales of `x_t = alpha x + sigma eps` for `t` in [0, 1]; `alpha / sigma` falls in `t`.
With s the smallest and S the largest noise, and `tau` a time of the rectified flow that runs between their
own,

    tau = (1 - t) tau_s + t tau_S,  tau_s = s / (1 + s),  tau_S = S / (1 + S)

    log_logit     alpha = 1,        sigma = exp(scale * logit(tau) + shift)
    log_linear    alpha = 1,        sigma = s^(1 - t) S^t
    rectified     alpha = 1 - tau,  sigma = tau

so that `sigma / alpha` runs from s to S, but for log_logit's scale and shift. The rectified flow itself has
`tau = t`, where `log(sigma / alpha)` is infinite at both ends; s and S keep it finite, and move no time by
more than `max(s, 1 / S)`. At scale 1 and shift 0 log_logit is the rectified flow up to scale: its `x_t` is
that of the flow over `1 - tau`, and denoisers that scale their input see no difference.

The objective's times are quantiles `t = Q(u)` of a prior, at one uniform number `u` per sample:

    uniform       Q(u) = a + (b - a) u
    beta          Q the inverse of the regularised incomplete beta function I(a, b)
    kumaraswamy   Q(u) = (1 - (1 - u)^(1/b))^(1/a)
"""

import dataclasses
import math
from typing import Annotated, Literal, get_args

import torch
from azula.noise import Schedule, VESchedule
from torch import Tensor

from lola.core.config import Config, Within, require
from lola.core.seeding import SampleGenerator

ScheduleName = Literal["log_logit", "log_linear", "rectified"]
PriorName = Literal["uniform", "beta", "kumaraswamy"]
LOG_SIGMAS = 30.0  # of their squares, single precision holds the exponentials


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Config):
    """A noise schedule.

    Arguments:
        name: Which.
        sigma_min: Noise over signal at t = 0; log_logit's at scale 1 and shift 0.
        sigma_max: The same at t = 1.
        scale: Slope of log sigma over the logit, of log_logit alone.
        shift: Offset of log sigma over the logit, of log_logit alone.
    """

    name: ScheduleName = "log_logit"
    sigma_min: Annotated[float, Within("[1e-6, 1e6]")] = 1e-3
    sigma_max: Annotated[float, Within("[1e-6, 1e6]")] = 1e3
    scale: Annotated[float, Within("(0, 10]")] = 1.0
    shift: Annotated[float, Within("[-30, 30]")] = 0.0

    def validate(self) -> None:
        require(self.name in get_args(ScheduleName), f"no schedule is called {self.name!r}")
        require(
            self.sigma_min < self.sigma_max,
            f"--sigma-min must be below --sigma-max, not {self.sigma_min} and {self.sigma_max}",
        )
        ends = (self.scale * math.log(sigma) + self.shift for sigma in (self.sigma_min, self.sigma_max))
        require(
            all(abs(end) <= LOG_SIGMAS for end in ends),
            f"--scale {self.scale} and --shift {self.shift} take noise over signal out of the range of "
            f"single precision; log sigma must stay within {LOG_SIGMAS}",
        )
        require(
            self.name == "log_logit" or (self.scale == 1 and self.shift == 0),
            f"--scale and --shift are those of log_logit; {self.name} has none",
        )

    def build(self) -> Schedule:
        """The schedule: `t` of shape `(*)` in [0, 1] to `alpha` and `sigma` of shape `(*)`."""
        match self.name:
            case "log_logit":
                return LogLogitSchedule(self)
            case "log_linear":
                return VESchedule(self.sigma_min, self.sigma_max)
            case "rectified":
                return RectifiedSchedule(self)


class LogLogitSchedule(Schedule):
    """`t` of shape `(*)` in [0, 1] to `alpha` and `sigma` of shape `(*)`."""

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        tau_min, tau_max = (s / (1 + s) for s in (self.config.sigma_min, self.config.sigma_max))
        tau = t * (tau_max - tau_min) + tau_min
        return torch.ones_like(t), torch.exp(self.config.scale * torch.logit(tau) + self.config.shift)


class RectifiedSchedule(Schedule):
    """`t` of shape `(*)` in [0, 1] to `alpha` and `sigma` of shape `(*)`, which sum to 1."""

    def __init__(self, config: ScheduleConfig) -> None:
        self.ends = config.sigma_min, config.sigma_max

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.ends
        # Sums of positive terms: 1 - tau would lose the digits of a small alpha
        alpha = (1 - t) / (1 + low) + t / (1 + high)
        return alpha, (1 - t) * (low / (1 + low)) + t * (high / (1 + high))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimePriorConfig(Config):
    """How the times of the diffusion objective are distributed.

    Arguments:
        name: The distribution.
        a: The lower end of the uniform distribution; the first exponent of the others, positive.
        b: The upper end of the uniform distribution; the second exponent of the others, positive.
    """

    name: PriorName = "uniform"
    a: Annotated[float, Within("[0, 1000]")] = 0.0
    b: Annotated[float, Within("(0, 1000]")] = 1.0

    def validate(self) -> None:
        require(self.name in get_args(PriorName), f"no time prior is called {self.name!r}")
        if self.name == "uniform":
            ordered = 0 <= self.a < self.b <= 1
            require(ordered, f"a uniform prior needs 0 <= --a < --b <= 1, not {self.a} and {self.b}")
        else:
            require(self.a > 0, f"a {self.name} prior needs an --a above 0, not {self.a}")

    def draw(self, generator: SampleGenerator) -> Tensor:
        """One time in [0, 1] per sample, float32, with shape `(B)`."""
        match self.name:
            case "uniform":
                return self.a + (self.b - self.a) * generator.uniform()
            case "beta":
                import scipy.special  # here, since it is large and no other prior needs it

                return generator.uniform(quantile=lambda u: scipy.special.betaincinv(self.a, self.b, u))
            case "kumaraswamy":
                return generator.uniform(quantile=lambda u: (1 - (1 - u) ** (1 / self.b)) ** (1 / self.a))
