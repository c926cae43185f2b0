"""Resumable state of a training run: weights as safetensors, the optimiser as tensors, the position as JSON.

The order of samples, the learning rate and all random numbers are functions of the step, so that
the position is the step. Nothing is unpickled: optimiser state loads with `weights_only=True`.

`position.json` is written last, with a checksum of every other file: a checkpoint that a power cut has
emptied, cut or filled with zeros is corrupt, and never resumed from.
"""

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from lola.core.errors import DataError, DivergedError, StorageError
from lola.core.filesystem import describe_os_error
from lola.storage.remote import first_line
from lola.storage.stages import EMA_WEIGHTS, WEIGHTS

CHECKSUM = "sha256"  # of the values, in the metadata of weights
OPTIMIZER = "optimizer.pt"
POSITION = "position.json"
NAMED = 4  # parameters that a line names
WRAPPER = "denoiser.backbone."
"""What names of a diffusion model have before those that other models have of the same network."""


@dataclasses.dataclass(frozen=True)
class Position:
    """The global steps that a training run has done, and how many were skipped for a non-finite gradient."""

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
        state.get("heavyball", {}).pop("precond_schedule", None)  # a pickle of what the configuration holds
        torch.save(_on_host(state), folder / OPTIMIZER)
        files = {path.name: _checksum(path) for path in sorted(folder.iterdir()) if path.name != POSITION}
        (folder / POSITION).write_text(json.dumps(dataclasses.asdict(position) | {"files": files}))
    except (OSError, RuntimeError, SafetensorError) as error:  # some wrap a full disk in their own
        raise StorageError(
            describe_os_error(error, folder, "write")
            or f"cannot write a checkpoint to {folder} ({error}); free some space or give another --storage"
        ) from error


def read_position(folder: Path) -> Position:
    """The position of a checkpoint whose files are all intact.

    Raises:
        DataError: A file is missing, or is not as it was written.
    """
    try:
        described: dict[str, Any] = json.loads((folder / POSITION).read_text())
        files: dict[str, str] = described.pop("files", dict.fromkeys((WEIGHTS, OPTIMIZER), ""))
        position = Position(**described)
        found = {name: _checksum(folder / name) for name in files}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _corrupt(folder, error) from error
    for name, expected in files.items():
        if found[name] != expected and expected:  # earlier checkpoints have no checksums
            raise _corrupt(folder, f"{name} has another checksum than when it was written")
    return position


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _corrupt(folder: Path, fault: object) -> DataError:
    return DataError(
        f"checkpoint {folder} is corrupt ({fault}); remove it and run again to resume from the one before"
    )


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> Position:
    """Restore a run in place and return its position.

    Raises:
        DataError: The checkpoint is corrupt, of another network, or lacks the averaged weights that are asked
            for.
    """
    position = read_position(folder)
    load_weights(folder / WEIGHTS, model)
    if average is not None:
        load_weights(folder / EMA_WEIGHTS, average)
    try:
        state = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise _corrupt(folder, f"{OPTIMIZER}: {first_line(error)}") from error
    for group, own in zip(state["param_groups"], optimizer.param_groups, strict=False):
        if "fused" in own:  # a choice of the device, which may be another one now
            group["fused"] = own["fused"]
    optimizer.load_state_dict(state)
    return position


def _on_host(state: Any) -> Any:
    """Nested dictionaries and lists with their tensors on the CPU: the same file from every device."""
    if isinstance(state, dict):
        return {key: _on_host(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(_on_host, state))
    return state.cpu() if isinstance(state, torch.Tensor) else state


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
    metadata = {CHECKSUM: _checksum_of_values(state)}
    path.write_bytes(save(state, metadata))  # its own writing to files hides the filesystem's errors


def _checksum_of_values(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name; `DataError` if it cannot be read or is corrupt."""
    try:
        weights = load_file(path)
        with safe_open(path, "pt") as file:
            checksum = (file.metadata() or {}).get(CHECKSUM)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path} has no readable weights ({error}); remove it, and run what trained it again"
        ) from error
    if checksum is not None and checksum != _checksum_of_values(weights):
        raise DataError(f"{path} is corrupt (another checksum); remove it, and run what trained it again")
    return weights


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Which parameters and buffers of a model come from another one of the same names.

    A network has the same names in a diffusion model as in others: its wrapper's does not count.

    Arguments:
        copied: Those of both.
        new: Those that the other one lacks; they keep their initial values.
        misshapen: Those that have another shape there, such as the maps of other channels; likewise.
        unused: Those that only the other one has.
        conflict: Why the networks are too different; empty if they are not.
    """

    copied: tuple[str, ...]
    new: tuple[str, ...]
    misshapen: tuple[str, ...]
    unused: tuple[str, ...]
    conflict: str

    @classmethod
    def between(cls, source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> "Transfer":
        """What two networks have in common: more numbers must be copied than cannot be for their shapes."""
        known = _unwrapped(source)
        alike = {name: known[own].shape == target[name].shape for own, name in _names(target) if own in known}
        copied = tuple(name for name, same in alike.items() if same)
        misshapen = tuple(name for name, same in alike.items() if not same)
        numbers, lost = (sum(target[name].numel() for name in names) for names in (copied, misshapen))
        conflict = "" if copied else "no parameter has the same name"
        if misshapen and lost >= numbers:
            first = misshapen[0]
            shapes = tuple(known[first.removeprefix(WRAPPER)].shape), tuple(target[first].shape)
            conflict = f"{first} has shape {shapes[0]} there, not {shapes[1]}"
        return cls(
            copied,
            tuple(name for own, name in _names(target) if own not in known),
            misshapen,
            tuple(name for own, name in _names(source) if own not in _unwrapped(target)),
            conflict,
        )

    def describe(self, source: str) -> str:
        """What was copied of a source and what was not, in one line."""
        parts = [f"starts from {len(self.copied)} parameters of {source}"]
        for names, text in (
            (self.new, "new"),
            (self.misshapen, "new, of another shape there"),
            (self.unused, "unused"),
        ):
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                parts.append(f"{len(names)} {text} ({', '.join(names[:NAMED])}{more})")
        return "; ".join(parts)


def _names(state: Mapping[str, torch.Tensor]) -> list[tuple[str, str]]:
    """Names without the wrapper, and as they are."""
    return [(name.removeprefix(WRAPPER), name) for name in state]


def _unwrapped(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {own: state[name] for own, name in _names(state)}


@torch.no_grad()
def copy_weights(path: Path, model: nn.Module) -> Transfer:
    """Copy the weights of a file to the parameters and buffers of the same names, in place.

    Raises:
        DataError: No tensor has the same name, most have another shape there, or the file is corrupt.
    """
    weights, own = _read_weights(path), model.state_dict()
    transfer = Transfer.between(weights, own)
    if transfer.conflict:
        raise DataError(
            f"a network cannot start from {path}: {transfer.conflict}; choose another --warm-start"
        )
    known = _unwrapped(weights)
    for name in transfer.copied:
        own[name].copy_(known[name.removeprefix(WRAPPER)])
    return transfer


def load_weights(path: Path, model: nn.Module) -> None:
    """Load weights of exactly this module, in place.

    Raises:
        DataError: A tensor is missing, surplus or of another shape, or the file is corrupt; names the first.
    """
    weights = _read_weights(path)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise DataError(f"{path} lacks {name}: it belongs to another network")
        if name not in expected:
            raise DataError(f"{path} has a surplus {name}: it belongs to another network")
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
