r"""Integrators of the reverse process (Eq. 2), by azula.

With `rho = sigma / alpha`, `x(x_t) = E[x | x_t]` and `z(x_t) = (x_t - alpha x(x_t)) / sigma`, the probability
flow is `d(x_t / alpha) = z(x_t) d rho`. Deterministic methods integrate it; those of several steps take

    adams_bashforth            z as a polynomial in rho through the last `order` steps (the published method)
    adams_bashforth_velocity   z - x as a polynomial in rho / (1 + rho)
    exponential_noise          z as a polynomial in log rho (DPM-Solver, of several steps)
    exponential_data           x as a polynomial in log rho (DPM-Solver++, of several steps)
    exponential_rosenbrock     what is left of z without its part linear in x_t (DPM-Solver-v3's idea)

`euler` and `heun` are the classic methods in rho. With few-step diffusion, whose network knows where a step
leads, steps of `euler` are those of the flow map that it has learned (`lola.models.shortcut`). Stochastic
methods add noise: `ddpm`; `ddim`, a share `eta` of that; `ito`, Euler's method for the stochastic equation;
`predictor_corrector`, Langevin steps of size `delta` before each step of Euler's. Methods stop at t = 0,
where the schedule leaves a little noise.

Between t = 1 and 0 the `n` steps are spaced evenly, as `u = 1 ... 0`, in

    time       t  (published)
    log_snr    log rho
    power      rho^(1 / exponent), larger exponents spending more steps on little noise
    angle      arctan rho
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from azula.denoise import Denoiser
from azula.noise import Schedule
from azula.sample import (
    DDIMSampler,
    DDPMSampler,
    EulerSampler,
    HeunSampler,
    ItoSampler,
    PCSampler,
    REABSampler,
    Sampler,
    vABSampler,
    xEABSampler,
    zABSampler,
    zEABSampler,
)
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lola.core.seeding import SampleGenerator
from lola.emulation.sampling_config import SamplerConfig, SamplerName, Spacing


class RosenbrockSampler(REABSampler):
    """azula's method with its integral scaled by the noise that a step ends at.

    azula 0.11 takes `sqrt(alpha_s^2 + sigma_t^2)` for `sqrt(alpha_s^2 + sigma_s^2)`, which makes an error of
    the first order in the step.
    """

    @torch.no_grad()
    def __call__(self, x: Tensor, **kwargs: Any) -> Tensor:
        times = self.timesteps.to(x.device)
        alpha, sigma = self.denoiser.schedule(times)
        norm = torch.hypot(alpha, sigma)
        past: list[Tensor] = []
        for i, t in enumerate(times[:-1]):
            mean = self.denoiser(x, t, **kwargs).mean
            rest = alpha[i] * norm[i] / sigma[i] * (x / norm[i] ** 2 - mean / alpha[i])
            past = [*past[1 - self.order :], rest] if self.order > 1 else [rest]
            weights = self._exponential_adams_bashforth(torch.log(sigma / alpha), i=i, n=self.order)
            integral = sum(weight * each for weight, each in zip(weights, past, strict=True))
            x = norm[i + 1] / norm[i] * x + norm[i + 1] * integral
        return x


class FlowMapSampler(EulerSampler):
    """Euler's method, which gives a denoiser that is a flow map the times that its steps lead to."""

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, **kwargs: Any) -> Tensor:
        """From time `t` to `s`, with the shape of `x_t`."""
        target = {"target": s} if getattr(self.denoiser, "flow_map", False) else {}
        return super().step(x_t, t, s, **target, **kwargs)


SAMPLERS: dict[SamplerName, type[Sampler]] = {
    "adams_bashforth": zABSampler,
    "adams_bashforth_velocity": vABSampler,
    "exponential_noise": zEABSampler,
    "exponential_data": xEABSampler,
    "exponential_rosenbrock": RosenbrockSampler,
    "euler": FlowMapSampler,
    "heun": HeunSampler,
    "ddpm": DDPMSampler,
    "ddim": DDIMSampler,
    "ito": ItoSampler,
    "predictor_corrector": PCSampler,
}


def build_sampler(
    config: SamplerConfig, denoiser: Denoiser, generator: SampleGenerator | None = None
) -> Sampler:
    """The sampler that `SamplerConfig.build` returns."""
    arranged = arrange(config, SAMPLERS[config.name], denoiser, generator if config.stochastic else None)
    return arranged(denoiser, **config.options)


def arrange(
    config: SamplerConfig, method: type[Sampler], denoiser: Denoiser, generator: SampleGenerator | None
) -> Callable[..., Sampler]:
    """A method of azula's at the times of a configuration, its noise drawn from a generator."""
    count, spacing = config.steps // config.cost, config.spacing
    if spacing == "time" and generator is None:
        return lambda *inputs, **options: method(*inputs, steps=count, silent=True, **options)
    times = None if spacing == "time" else _times(denoiser.schedule, spacing, count, config.spacing_exponent)

    class Arranged(method):  # type: ignore[valid-type, misc]
        @property
        def timesteps(self) -> Tensor:
            return super().timesteps if times is None else times.to(self.dtype or torch.float32)

        def __call__(self, x: Tensor, **kwargs: Any) -> Tensor:
            if generator is None:
                return super().__call__(x, **kwargs)
            with KeyedNoise(generator):
                return super().__call__(x, **kwargs)

    return functools.partial(Arranged, steps=count, silent=True)


class KeyedNoise(TorchFunctionMode):
    """Within it `torch.randn_like` draws each row from its own stream, so that no row depends on others."""

    def __init__(self, generator: SampleGenerator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.randn_like:
            return self.generator.normal(*args[0].shape[1:]).to(args[0])
        return func(*args, **(kwargs or {}))


@functools.lru_cache(maxsize=64)
def _times(schedule: Schedule, spacing: Spacing, count: int, exponent: float) -> Tensor:
    """`count + 1` times from 1 to 0 that are evenly spaced in a function of rho, float64."""
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    first, last = _spaced(_log_rho(schedule, ends), spacing, exponent)
    wanted = first + (last - first) * torch.linspace(0, 1, count + 1, dtype=torch.float64)
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(60):
        middle = (low + high) / 2
        above = (_spaced(_log_rho(schedule, middle), spacing, exponent) - wanted) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    times = (low + high) / 2
    times[0], times[-1] = ends
    return times


def _log_rho(schedule: Schedule, t: Tensor) -> Tensor:
    alpha, sigma = schedule(t)
    return torch.log(sigma) - torch.log(alpha)


def _spaced(log_rho: Tensor, spacing: Spacing, exponent: float) -> Tensor:
    """The quantity in which steps are even; it rises with the noise."""
    match spacing:
        case "power":
            return torch.exp(log_rho / exponent)
        case "angle":
            return torch.atan(torch.exp(log_rho))
        case _:
            return log_rho
