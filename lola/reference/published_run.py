"""The files of a published run: its configuration, its weights, and what may be wrong with them.

A run is a folder with `config.yaml` and `state.pth`, a plain state dict under the authors' names. Where there
is no `state.pth`, `state_best.pth` is read; where there are both, `state.pth`, as in their evaluation.
"""

import contextlib
import dataclasses
import hashlib
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor, nn

from lola.core.errors import ConfigError, DataError

State = dict[str, Tensor]
Reorder = Callable[[str, Tensor], Tensor]
M = TypeVar("M", bound=nn.Module)

WEIGHTS = ("state.pth", "state_best.pth")
NETWORKS = ("denoiser", "surrogate", "ae")  # an emulator's configuration may describe its autoencoder too


@dataclasses.dataclass(frozen=True)
class PublishedRun:
    """A published run."""

    folder: Path
    config: dict[str, Any]
    weights: Path  # the file of `state`
    state: State

    @property
    def kind(self) -> str:
        """The section that describes the run's network: `ae`, `denoiser` or `surrogate`."""
        return next(name for name in NETWORKS if self.config.get(name) is not None)

    def section(self, name: str) -> dict[str, Any]:
        """A section of the configuration; one that is missing is empty.

        Raises:
            DataError: It is not a section.
        """
        section = self.config.get(name)
        if section is None:
            return {}
        if not isinstance(section, dict):
            raise self.error(f"{name} is {section!r}, not a section")
        return {str(key): value for key, value in section.items()}

    def error(self, message: str) -> DataError:
        """An error of the configuration."""
        return DataError(f"{self.folder / 'config.yaml'}: {message}")

    def refuse_unknown(self, name: str, section: Mapping[str, Any], known: Iterable[str]) -> None:
        """Raise `DataError` that names the options of a section that are not among the known ones."""
        unknown = sorted({str(key) for key in section} - set(known))
        if unknown:
            raise self.error(f"{name} has options that we do not know: {', '.join(unknown)}")

    @contextlib.contextmanager
    def translate_config_errors(self, name: str) -> Iterator[None]:
        """Turn what configurations of ours refuse into an error of this run's section."""
        try:
            yield
        except ConfigError as error:
            raise self.error(f"{name} is not supported: {error}") from error

    def tensor(self, name: str) -> Tensor:
        """A tensor of the weights by its published name; one that is missing is a `DataError`."""
        if name not in self.state:
            raise DataError(f"{self.weights} lacks {name}; is it the weights of this run?")
        return self.state[name]

    def digest(self) -> str:
        """A hash of the weights: of their names, types, shapes and numbers."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def read_run(folder: Path | str) -> PublishedRun:
    """Read the files of a run.

    Raises:
        DataError: The folder is not a run, or its files are corrupt or hold something else.
    """
    folder = Path(folder)
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); is it the folder of a run?") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not YAML; fetch it again") from error
    if not isinstance(config, dict) or all(config.get(name) is None for name in NETWORKS):
        raise DataError(f"{path} has none of {', '.join(NETWORKS)}; is it a published run?")
    weights = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if weights is None:
        raise DataError(f"{folder} has neither {' nor '.join(WEIGHTS)}; fetch its weights")
    return PublishedRun(folder, config, weights, _read_state(weights))


def _read_state(path: Path) -> State:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{path} is not a complete, plain state dict; fetch it again") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise DataError(f"{path} is not a plain state dict of tensors by name")
    return state


def keep_layout(name: str, tensor: Tensor) -> Tensor:
    """A published tensor that has our layout."""
    return tensor


def load_run_weights(
    run: PublishedRun,
    model: M,
    names: Callable[[str], Iterable[str]],
    constants: Mapping[str, Tensor],
    reorder: Reorder = keep_layout,
) -> M:
    """Load a run's weights into a network of ours, and put it in evaluation mode.

    Arguments:
        run: The run.
        model: Our network.
        names: The names that a tensor of ours has in published runs; all name the same layout.
        constants: Buffers that the run stores and that our network knows, by published name.
        reorder: Makes, given our name, our layout of a published tensor.

    Raises:
        DataError: A tensor is missing, surplus or of another shape, or a constant of another value; the first
            such is named as in the run.
    """
    rest, found = dict(run.state), {}
    for ours, tensor in model.state_dict().items():
        candidates = tuple(names(ours))
        theirs = next((name for name in candidates if name in rest), candidates[0])
        found[ours] = _require_shape(run, theirs, reorder(ours, _take(run, rest, theirs)), tensor)
    for name, value in constants.items():
        if not torch.allclose(_require_shape(run, name, _take(run, rest, name), value), value, rtol=1e-4):
            raise DataError(f"{run.weights}: {name} has other values than the networks that we know")
    if rest:
        raise DataError(f"{run.weights} has a surplus {min(rest)}; is it the weights of this run?")
    model.load_state_dict(found)
    return model.eval()


def _take(run: PublishedRun, rest: State, name: str) -> Tensor:
    tensor = run.tensor(name)
    del rest[name]
    return tensor


def _require_shape(run: PublishedRun, name: str, tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.shape != like.shape:
        expected = tuple(like.shape)
        raise DataError(f"{run.weights}: {name} is {tuple(tensor.shape)}, its configuration gives {expected}")
    return tensor.to(like.dtype)
