r"""A deterministic sampler as a table of numbers.

Whatever a deterministic sampler computes of noise and denoised windows are weighted sums whose weights depend
on the times alone. With `y_i` the network's input at its i-th evaluation, `F_i` its output there, and
`y_n` the sample,

    y_0 = noise,  y_{i+1} = sum_{j >= 0} (a_ij y_{i-j} + b_ij F_{i-j}),  c_i = c_noise(t_i)

where a network that is a flow map takes the pair of `c_noise` at both ends of a step for `c_i`.

The sampler itself gives the numbers: it is run once on vectors, with unit vectors for the noise and for every
output, so that each `y_i` comes out as its own coefficients. Sums over the fewest past steps that reproduce
them are then solved for. Between evaluations only these sums are computed, without synchronising
with the GPU to read a time.
"""

import dataclasses
from collections.abc import Callable

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from azula.sample import Sampler
from torch import Tensor

from lola.models.binding import NoiseLevel

EXACT = 1e-11


@dataclasses.dataclass(frozen=True)
class SamplerStep:
    """How the network's next input, or the sample, follows from an evaluation of the network."""

    noise: NoiseLevel  # c of this evaluation
    inputs: tuple[float, ...]  # the weights a of this input and those before it, latest first
    outputs: tuple[float, ...]  # the weights b of this output and those before it, latest first


class _Probe(Denoiser):
    """A denoiser of coefficients, whose network gives a new unit vector at every evaluation."""

    def __init__(self, schedule: Schedule, evaluations: int, flow_map: bool) -> None:
        super().__init__()
        self.schedule, self.flow_map = schedule, flow_map
        self.rows: list[Tensor] = []
        self.levels: list[NoiseLevel] = []
        self.size = evaluations + 1

    def forward(
        self, x_t: Tensor, t: Tensor, target: Tensor | None = None, **kwargs: object
    ) -> DiracPosterior:
        level = self._level(t)
        self.levels.append(level if target is None else (level, self._level(target)))
        alpha, sigma = self.schedule(t)
        alpha, sigma = alpha.double(), sigma.double()
        square = alpha**2 + sigma**2
        self.rows.append(x_t / square.sqrt())
        output = torch.eye(self.size, dtype=torch.float64)[len(self.rows)]
        return DiracPosterior(mean=alpha / square * x_t + sigma / square.sqrt() * output)

    def _level(self, t: Tensor) -> float:
        alpha, sigma = self.schedule(t)
        return float(10 * torch.log(sigma / alpha))


@torch.no_grad()
def unroll(
    sampler: Callable[[Denoiser], Sampler], schedule: Schedule, evaluations: int, flow_map: bool = False
) -> tuple[SamplerStep, ...]:
    """The steps of a deterministic sampler, which evaluates the network as often as `evaluations` says.

    Arguments:
        flow_map: Whether the network takes the noise level that a step leads to.
    """
    with torch.inference_mode(False):
        probe = _Probe(schedule, evaluations, flow_map)
        alpha, sigma = schedule(torch.ones(()))
        start = torch.eye(probe.size, dtype=torch.float64)[0] * torch.hypot(alpha.double(), sigma.double())
        last = sampler(probe)(start)
    rows = [*probe.rows, last]
    units = torch.eye(probe.size, dtype=torch.float64)[1:]
    return tuple(
        SamplerStep(level, *_recursion(rows[i + 1], rows[: i + 1], units[: i + 1]))
        for i, level in enumerate(probe.levels)
    )


def _recursion(
    target: Tensor, inputs: list[Tensor], outputs: Tensor
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The weights of the fewest past inputs and outputs whose weighted sum is the target vector."""
    for count in range(1, len(inputs) + 1):
        basis = torch.stack([*inputs[::-1][:count], *outputs.flip(0)[:count]])
        weights = torch.linalg.lstsq(basis.T, target[:, None], driver="gelsd").solution[:, 0]
        if (weights @ basis - target).abs().max() <= EXACT * target.abs().max():
            break
    values = weights.tolist()
    return tuple(values[:count]), tuple(values[count:])
