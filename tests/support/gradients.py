"""Whether a loss depends on every parameter of a network."""

from torch import nn


def without_gradient(module: nn.Module) -> list[str]:
    """The names of the parameters whose gradient is missing, zero everywhere, or not finite."""
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.numel()
        and not (parameter.grad is not None and 0 < parameter.grad.abs().sum() < float("inf"))
    ]
