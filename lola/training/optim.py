r"""Optimisers and the learning-rate schedule.

With warm-up steps `W`, total steps `S` and peak rate `eta`, the rate of step `s` is

    eta_s = eta * min(1, (s + 1) / W) * (1 + cos(pi * s / S)) / 2

a pure function of the step, so that nothing of it needs to be stored.

Muon (Jordan et al., 2024) replaces the averaged gradient of a matrix by the nearest orthogonal one; those of
convolutions are taken as matrices of output channels by the rest. With `n` columns the entries of what
`heavyball` returns have a root mean square of `1 / sqrt(n)`; times `0.2 sqrt(n)` it is 0.2, that of Adam's
updates, so that a learning rate, and weight decay, mean the same in both (Liu et al., arXiv 2502.16982,
section 2.2). Parameters of one axis, such as biases, take Adam's updates.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from lola.training.config import OptimizerConfig
from lola.training.precision import Precision

DECAY = 0.999  # by which the probability of PSGD's updates falls per step
MUON_RMS = 0.2  # of updates, times the learning rate
RATE_FACTOR = "learning_rate_factor"  # of groups of parameters


def build_optimizer(config: OptimizerConfig, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The optimiser of parameters, which are all on one device.

    On GPUs Adam's steps are one kernel each, which moves 7 numbers per parameter where its separate
    operations move about 20.
    """
    parameters = list(parameters)
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.name in ("adamw", "adam"):
        kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
        fused = True if parameters[0].device.type == "cuda" else None
        return kind(parameters, betas=config.betas, fused=fused, **shared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import heavyball

    heavyball.utils.compile_mode = None  # compiling takes minutes, at every start
    if config.name == "soap":
        return heavyball.SOAP(
            parameters,
            betas=config.betas,
            precondition_frequency=config.precondition_frequency,
            max_precond_dim=config.max_dimension,
            **shared,
        )
    if config.name == "muon":
        return heavyball.MuonAdamW(_muon_groups(config, parameters), betas=config.betas, **shared)
    schedule = functools.partial(_update_probability, floor=config.preconditioner_probability)
    return heavyball.PSGDKron(
        parameters,
        beta=config.betas[0],
        preconditioner_update_probability=schedule,
        max_size_triangular=config.max_dimension,
        store_triu_as_line=False,  # packing and unpacking takes longer than twice the memory is worth
        **shared,
    )


def _muon_groups(config: OptimizerConfig, parameters: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Parameters by the factor of their learning rate, which weight decay does not have."""
    groups: dict[float, list[Tensor]] = {}
    for parameter in parameters:
        columns = parameter[:1].numel()
        factor = MUON_RMS * math.sqrt(columns) if parameter.ndim > 1 else 1.0
        groups.setdefault(factor, []).append(parameter)
    return [
        {"params": group, RATE_FACTOR: factor, "weight_decay": config.weight_decay / factor}
        for factor, group in groups.items()
    ]


@contextlib.contextmanager
def fast_products(config: OptimizerConfig, precision: Precision) -> Iterator[None]:
    """A context for steps of an optimiser: how PSGD multiplies.

    In the order that a greedy search finds: one for the best takes a third of the host's time of a step, and
    finds no better. In trainings in bfloat16, products of float32 matrices on GPUs have 10 bits of mantissa
    (TF32): a large one ran at 50 TFLOP/s on an H200 without.
    """
    if config.name != "psgd":
        yield
        return
    einsum, products = torch.backends.opt_einsum, torch.backends.cuda.matmul
    before = einsum.strategy, products.allow_tf32
    einsum.strategy, products.allow_tf32 = "greedy", precision == "bfloat16" or before[1]
    try:
        yield
    finally:
        einsum.strategy, products.allow_tf32 = before


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(RATE_FACTOR, 1.0)


def _update_probability(step: Tensor | int, floor: float) -> float:
    """How often PSGD updates its preconditioner: always at first, less and less, never less than `floor`."""
    return max(DECAY ** int(step), floor)


def preconditioner_updates(config: OptimizerConfig, steps: int) -> int:
    """How many of the first steps update a preconditioner: those at which the sum of all steps' probabilities
    passes an integer, as `heavyball` has it; 0 of optimisers without one."""
    if config.name == "soap":
        return steps // config.precondition_frequency
    if config.name != "psgd":
        return 0
    floor = config.preconditioner_probability
    falling = min(steps, math.floor(math.log(floor) / math.log(DECAY))) if floor else steps
    return math.floor(DECAY * (1 - DECAY**falling) / (1 - DECAY) + (steps - falling) * floor)


def learning_rate(config: OptimizerConfig, step: int, steps: int, warmup: int) -> float:
    """The rate of a step: linear warm-up, then a cosine to zero."""
    ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return config.learning_rate * ramp * (1 + math.cos(math.pi * step / steps)) / 2
