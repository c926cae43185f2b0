r"""Optimisers and the learning-rate schedule.

With warm-up steps `W`, total steps `S` and peak rate `eta`, the rate of step `s` is

    eta_s = eta * min(1, (s + 1) / W) * (1 + cos(pi * s / S)) / 2

a pure function of the step, so that nothing of it needs to be stored.
"""

import functools
import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lola.training.config import OptimizerConfig


def build_optimizer(config: OptimizerConfig, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    parameters = list(parameters)
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, betas=config.betas, **shared)
    if config.name == "adam":
        return torch.optim.Adam(parameters, betas=config.betas, **shared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import heavyball

    if parameters[0].device.type == "cpu":
        heavyball.utils.compile_mode = None  # compiling the preconditioner on a CPU takes minutes
    if config.name == "soap":
        return heavyball.SOAP(
            parameters,
            betas=config.betas,
            precondition_frequency=config.precondition_frequency,
            max_precond_dim=config.max_dimension,
            **shared,
        )
    schedule = functools.partial(_update_probability, floor=config.preconditioner_probability)
    return heavyball.PSGDKron(
        parameters,
        beta=config.betas[0],
        preconditioner_update_probability=schedule,
        max_size_triangular=config.max_dimension,
        **shared,
    )


def _update_probability(step: Tensor | int, floor: float) -> float:
    """How often PSGD updates its preconditioner: always at first, less and less, never less than `floor`."""
    return max(0.999 ** int(step), floor)


def learning_rate(config: OptimizerConfig, step: int, steps: int, warmup: int) -> float:
    """The rate of a step: linear warm-up, then a cosine to zero."""
    ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return config.learning_rate * ramp * (1 + math.cos(math.pi * step / steps)) / 2
