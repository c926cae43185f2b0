"""Configurations of noise schedules and of training times, whose formulas `lola.models.schedule` gives."""

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from lola.core.config import Config, Within, require

if TYPE_CHECKING:
    from azula.noise import Schedule
    from torch import Tensor

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

    def build(self) -> "Schedule":
        """The schedule: `t` of shape `(*)` in [0, 1] to `alpha` and `sigma` of shape `(*)`."""
        from azula.noise import VESchedule

        from lola.models.schedule import LogLogitSchedule, RectifiedSchedule

        match self.name:
            case "log_logit":
                return LogLogitSchedule(self)
            case "log_linear":
                return VESchedule(self.sigma_min, self.sigma_max)
            case "rectified":
                return RectifiedSchedule(self)


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

    def draw(self, generator: "SampleGenerator") -> "Tensor":
        """One time in [0, 1] per sample, float32, with shape `(B)`."""
        match self.name:
            case "uniform":
                return self.a + (self.b - self.a) * generator.uniform()
            case "beta":
                import scipy.special  # here, since it is large and no other prior needs it

                return generator.uniform(quantile=lambda u: scipy.special.betaincinv(self.a, self.b, u))
            case "kumaraswamy":
                return generator.uniform(quantile=lambda u: (1 - (1 - u) ** (1 / self.b)) ** (1 / self.a))
