"""Resumable state of a training run: weights as safetensors, the optimiser as tensors, the position as JSON.

The order of samples, the learning rate and all random numbers are functions of the step, so that
the position is the step. Nothing is unpickled: optimiser state loads with `weights_only=True`.
"""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lola.errors import DataError, DivergedError, StorageError

WEIGHTS = "model.safetensors"
EMA_WEIGHTS = "model_ema.safetensors"


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a training run stands.

    Arguments:
        step: Global steps done.
        skipped: How many of them were skipped for a non-finite gradient.
    """

    step: int = 0
    skipped: int = 0


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    average: nn.Module | None = None,
) -> None:
    """Write everything that the next step needs into an existing folder; `average` holds averaged weights."""
    try:
        save_weights(folder / WEIGHTS, model)
        if average is not None:
            save_weights(folder / EMA_WEIGHTS, average)
        state = optimizer.state_dict()
        state.get("heavyball", {}).pop("precond_schedule", None)  # a pickle of what the configuration says
        torch.save(state, folder / "optimizer.pt")
        (folder / "position.json").write_text(json.dumps(dataclasses.asdict(position)))
    except (OSError, RuntimeError) as error:  # torch and safetensors wrap a full disk in errors of their own
        raise StorageError(f"cannot write a checkpoint to {folder}: {error}") from error


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> Position:
    """Restore a run in place and return its position.

    Raises:
        DataError: The checkpoint is of another network, or lacks the averaged weights that are asked for.
    """
    load_weights(folder / WEIGHTS, model)
    if average is not None:
        load_weights(folder / EMA_WEIGHTS, average)
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True))
    return Position(**json.loads((folder / "position.json").read_text()))


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a module's parameters and buffers as safetensors.

    Raises:
        DivergedError: One of them is not finite; names the first.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise DivergedError(
                f"{name} holds values that are not finite, and is not written to {path}: training diverged; "
                "lower its learning rate"
            )
    save_file(state, path)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load weights of exactly this module, in place.

    Raises:
        DataError: A tensor is missing, surplus or of another shape, or the file is torn; names the first.
    """
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors raises several types, none of them public
        raise DataError(f"{path} holds no readable weights ({error})") from None
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise DataError(f"{path} lacks {name}: it belongs to another network")
        if name not in expected:
            raise DataError(f"{path} holds a surplus {name}: it belongs to another network")
        if expected[name] != found[name]:
            raise DataError(
                f"{path}: {name} has shape {found[name]}, not {expected[name]}: "
                "it was trained with other channels or widths"
            )
    model.load_state_dict(weights)
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise DataError(
                f"{path}: {name} holds values that are not finite, or beyond {tensor.dtype}; train it again"
            )
