r"""What the machine can do at best: large products and convolutions, whose arithmetic bounds them.

A step of `n` floating-point operations that takes `s` seconds runs at `n / s`; over the best of these it is
the fraction of the machine that the step uses.
"""

import functools
import statistics

import torch
from benchmarks.configs import Clock
from benchmarks.timing import interleave
from torch import nn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@torch.no_grad()
def roofline(
    rounds: int,
    clock: Clock = "wall",
    size: int = 1536,
    channels: int = 256,
    grid: int = 64,
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, float]]:
    """Operations per second, in 10^9, of a large matrix product and a large convolution in each precision.

    Arguments:
        rounds, clock: As in `interleave`.
        size: Rows and columns of the matrices.
        channels, grid: Channels and cells along each axis of the convolution, whose kernel is 3 x 3.
        device: Where.
    """
    steps = {}
    for name, dtype in DTYPES.items():
        a, b = torch.randn(2, size, size, device=device).to(dtype)
        x = torch.randn(1, channels, grid, grid, device=device).to(dtype, memory_format=torch.channels_last)
        conv = nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype, device=device)
        steps[name, "product"] = functools.partial(torch.mm, a, b)
        steps[name, "convolution"] = functools.partial(conv, x)
    operations = {"product": 2 * size**3, "convolution": 2 * 9 * channels**2 * grid**2}
    seconds = interleave({f"{name} {kind}": step for (name, kind), step in steps.items()}, rounds, clock)
    return {
        name: {
            kind: count / statistics.median(seconds[f"{name} {kind}"]) / 1e9
            for kind, count in operations.items()
        }
        for name in DTYPES
    }
