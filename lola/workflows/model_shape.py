"""A model on the data of a system: what it is built with, and whether it fits."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lola.core.config import Config, option_name, prefix_options, require
from lola.core.errors import ConfigError
from lola.emulation.cache_config import CacheConfig
from lola.models.autoencoder_config import CodecConfig
from lola.training.counting import Counts, check_on_meta_device, count_step
from lola.training.precision import Precision
from lola.workflows.dataset_info import FLOAT, DatasetInfo

PARAMETERS = 1e11  # of the largest model: its weights alone take 400 GB


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """A model, and the sizes that the data decide.

    Arguments:
        model: The model's configuration.
        sizes: The arguments of its `build`, by which it is also loaded.
        grid: Cells of a sample along each axis.
        parameters: The length `P` of a sample's parameters.
        item_bytes: Bytes of a number in storage.
    """

    model: Any
    sizes: dict[str, int]
    grid: tuple[int, ...]
    parameters: int
    item_bytes: int = FLOAT

    @classmethod
    def of_autoencoder(cls, model: CodecConfig, data: DatasetInfo) -> "ModelShape":
        sizes = {"channels": len(data.system.channels), "spatial": len(data.grid)}
        return cls(model, sizes, data.grid, data.parameters)

    @classmethod
    def of_emulator(
        cls,
        model: Config,
        data: DatasetInfo,
        window: int,
        codec: CodecConfig | None = None,
        cache: CacheConfig | None = None,
    ) -> "ModelShape":
        """An emulator of `window` states: of latents of an autoencoder in a cache, else of the fields."""
        sizes = {
            "channels": len(data.system.channels) if codec is None else codec.latent_channels,
            "parameters": data.parameters,
            "spatial": len(data.grid),
            "window": window,
        }
        grid = data.grid if codec is None else latent_grid(codec, data.grid)
        bytes_ = FLOAT if cache is None else np.dtype(cache.dtype).itemsize
        return cls(model, sizes, grid, data.parameters, bytes_)

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any], grid: tuple[int, ...], parameters: int) -> "ModelShape":
        """The model of a finished stage, on samples of a grid."""
        return cls(read_model_config(manifest), manifest["sizes"], grid, parameters)

    @property
    def states(self) -> tuple[int, ...]:
        """The shape `(C, S, *grid)` of a training sample."""
        window = self.sizes.get("window")
        states = 1 if window is None else self.model.training_states(window)
        return (self.sizes["channels"], states, *self.grid)

    @property
    def sample_bytes(self) -> int:
        return self.item_bytes * math.prod(self.states)

    def counts(self, precision: Precision = "float32") -> Counts:
        """What a step of its training asks for."""
        return _count(self.model, tuple(self.sizes.items()), self.states, self.parameters, precision)

    def fit(self, name: str) -> None:
        """Raise `ConfigError`, naming the option that the model is from, unless it takes its samples."""
        if isinstance(self.model, CodecConfig):
            with prefix_options(f"{name}."):
                self.model.check_grid(self.grid)
        else:
            with prefix_options(f"{name}.network."):
                self.model.network.check_grid(self.grid, self.sizes["window"])
        _try_out(option_name(name), self.model, tuple(self.sizes.items()), self.states, self.parameters)


def read_model_config(manifest: Mapping[str, Any]) -> Config:
    """The configuration of a finished stage's model."""
    described = manifest["model"]
    return Config.classes[described["type"]].from_json(described)


def latent_grid(codec: CodecConfig, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Cells of the latent states of an autoencoder along each axis."""
    return tuple(size // factor for size, factor in zip(grid, codec.factors(len(grid)), strict=True))


@functools.lru_cache(maxsize=64)
def _count(
    model: Any,
    sizes: tuple[tuple[str, int], ...],
    states: tuple[int, ...],
    parameters: int,
    precision: Precision,
) -> Counts:
    return count_step(functools.partial(model.build, **dict(sizes)), states, parameters, precision)


@functools.lru_cache(maxsize=64)
def _try_out(
    title: str, model: Any, sizes: tuple[tuple[str, int], ...], states: tuple[int, ...], parameters: int
) -> None:
    """Run a model once, without memory, on a sample of the shape `states`."""
    shape = " x ".join(map(str, states))
    try:
        weights = check_on_meta_device(functools.partial(model.build, **dict(sizes)), states, parameters)
    except ConfigError:
        raise
    except (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{title} does not run on samples of {shape} (channels, states, grid): {reason}; "
            "choose other sizes"
        ) from error
    require(
        weights <= PARAMETERS,
        f"{title} has {weights:.3g} parameters on samples of {shape} (channels, states, grid); "
        f"{PARAMETERS:.3g} is the most",
    )
