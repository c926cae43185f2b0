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

import torch
from azula.noise import Schedule
from torch import Tensor

from lola.models.schedule_config import ScheduleConfig


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
