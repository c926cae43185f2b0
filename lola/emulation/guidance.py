r"""Guidance: windows drawn given observations of their states, by azula (Section 4, Figure 6).

With `y = A(x) + eps`, `eps ~ N(0, I)` once both are divided by the noise, the posterior of `x` given a noisy
`x_t` has a mean that samplers use in place of `d(x_t)`. Let `J` be the Jacobian of `A` at `d(x_t)`, `rho^2 =
sigma^2 / alpha^2` and `V = (sigma^2 / alpha) (d d / d x_t)` the covariance of `x` given `x_t`:

    mmps      d + V J^T (I + J V J^T)^-1 (y - A(d)), exact where x is Gaussian and A affine
    pgdm      d + V J^T (I + r^2 J J^T)^-1 (y - A(d)),  r^2 = rho^2 / (1 + rho^2), exact for x ~ N(mu, I)
    jfps      d + r^2 J^T (I + r^2 J J^T)^-1 (y - A(d)), likewise, without the network's Jacobian
    dps       ddpm's step, then a step of `strength` against the gradient of |y - A(d)|, whatever the noise

The linear systems are solved by a few iterations of GMRES or of conjugate gradients, a row of the batch at a
time. `A` is differentiated where it is not linear, such as through a decoder. Of azula's other methods, some
apply `A` to tangents as if it were linear (TMPD, DiffPIR), classifier-free guidance and RePaint take no noisy
observations of this kind, and TDS draws members together, each of which is here a function of its own key.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance import JFPSDenoiser, MMPSDenoiser
from azula.linalg.covariance import IsotropicCovariance
from azula.linalg.solve import cg, gmres
from azula.noise import Schedule
from azula.sample import DDPMSampler, Sampler
from torch import Tensor

from lola.core.seeding import SampleGenerator
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.sampling import arrange
from lola.emulation.sampling_config import SamplerConfig


def guided_sampler(
    config: GuidanceConfig,
    denoiser: Denoiser,
    y: Tensor,
    operator: Callable[[Tensor], Tensor],
    sampler: SamplerConfig,
    generator: SampleGenerator | None = None,
) -> Sampler:
    """The sampler of a denoiser given observations: call it with noise at t = 1 to draw.

    Arguments:
        y: Observations in units of their noise, with shape `(B, D)`.
        operator: `A` in the same units, from what the denoiser sees, `(B, *)`, to `(B, D)`, row by row.
        generator: One random stream per row, for stochastic samplers.

    Raises:
        ConfigError: The method cannot guide this sampler.
    """
    config.check(sampler)
    _load_derivatives()
    if config.name == "dps":
        arranged = arrange(sampler, GuidedDDPM, denoiser, generator)
        return arranged(denoiser, y=y, A=operator, zeta=config.options["strength"])
    return sampler.build(_guided_denoiser(config, denoiser, y, operator), generator)


def _guided_denoiser(
    config: GuidanceConfig, denoiser: Denoiser, y: Tensor, operator: Callable[[Tensor], Tensor]
) -> Denoiser:
    unit = IsotropicCovariance(1.0)
    match config.name:
        case "mmps":
            return MMPSDenoiser(denoiser, y, operator, cov_y=unit, **config.options)
        case "jfps":
            return JFPSDenoiser(denoiser, y, operator, cov_y=unit, cov_x=unit, **config.options)
        case _:
            return PGDMDenoiser(denoiser, y, operator, **config.options)


@functools.cache
def _load_derivatives() -> None:
    """Have torch load its derivatives along a direction, at which it warns of a part of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


class PGDMDenoiser(Denoiser):
    """Pseudo-inverse guidance with noise; azula's takes none, and a pseudo-inverse of the operator."""

    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        A: Callable[[Tensor], Tensor],
        solver: Literal["gmres", "cg"],
        iterations: int,
    ) -> None:
        super().__init__()
        self.denoiser, self.y, self.A = denoiser, y, A
        self.solve = functools.partial({"gmres": gmres, "cg": cg}[solver], iterations=iterations)

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @torch.no_grad()
    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """The mean of the posterior given the observations, with the shape of `x_t`."""
        alpha, sigma = self.schedule(t)
        variance = sigma**2 / (alpha**2 + sigma**2)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x = self.denoiser(x_t, t, **kwargs).mean
            y = self.A(x)

        def covariance(v: Tensor) -> Tensor:
            back = torch.autograd.grad(y, x, v, retain_graph=True)[0]
            return v + variance * torch.func.jvp(self.A, (x.detach(),), (back,))[1]

        weights = self.solve(A=covariance, b=self.y - y)
        return DiracPosterior(mean=x + sigma**2 / alpha * torch.autograd.grad(y, x_t, weights)[0])


class GuidedDDPM(DDPMSampler):
    """Diffusion posterior sampling; azula's takes the norm over the whole batch, this one row by row."""

    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        A: Callable[[Tensor], Tensor],
        zeta: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(denoiser, **kwargs)
        self.y, self.A, self.zeta = y, A, zeta

    @torch.no_grad()
    def step(self, x_t: Tensor, t: Tensor, s: Tensor, **kwargs: Any) -> Tensor:
        """From time `t` to `s`, with the shape of `x_t`."""
        alpha_s, sigma_s = self.denoiser.schedule(s)
        alpha_t, sigma_t = self.denoiser.schedule(t)
        tau = 1 - (alpha_t / alpha_s * sigma_s / sigma_t) ** 2
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x = self.denoiser(x_t, t, **kwargs).mean
            norm = torch.linalg.vector_norm((self.y - self.A(x)).flatten(1), dim=1).sum()
        z = (x_t - alpha_t * x) / sigma_t
        x_s = alpha_s * x + sigma_s * (torch.sqrt(1 - tau) * z + torch.sqrt(tau) * torch.randn_like(x_t))
        return x_s - self.zeta * torch.autograd.grad(norm, x_t)[0]
