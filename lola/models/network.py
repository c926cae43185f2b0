"""The base class of all emulators' network configurations."""

import abc
import dataclasses
from typing import TYPE_CHECKING, Annotated

from lola.core.config import Config, Kernel, NonEmpty, Size, Within, option_name, require

if TYPE_CHECKING:
    from torch import nn

Sizes = Size | NonEmpty[Size]
Kernels = Kernel | NonEmpty[Kernel]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(Config, abc.ABC):
    """A network of windows `(B, C, L, *grid)`.

    Arguments:
        modulation: Features of the vector that carries simulation parameters and diffusion time.
    """

    modulation: Annotated[int, Within("[4, 65536]")] = 256

    def validate(self) -> None:
        super().validate()
        require(
            self.modulation % 2 == 0,
            f"--modulation must be even, not {self.modulation}",
        )

    @abc.abstractmethod
    def check_grid(self, grid: tuple[int, ...], window: int) -> None:
        """Raise `ConfigError` unless the network takes windows of `window` states on the grid."""

    @abc.abstractmethod
    def build(self, channels: int, spatial: int, modulated: bool) -> "nn.Module":
        """The network that maps fields and mask, `2 channels`, to `channels`."""


def as_tuple(sizes: Sizes) -> tuple[int, ...]:
    """One or several sizes as a tuple."""
    return sizes if isinstance(sizes, tuple) else (sizes,)


def along_axes(name: str, sizes: Sizes, time: int, spatial: int) -> tuple[int, ...]:
    """The sizes that a field holds, along time and each of `spatial` grid axes.

    A single size is that of every grid axis, and `time` is then the one along time.
    """
    if isinstance(sizes, int):
        return (time, *[sizes] * spatial)
    require(
        len(sizes) == 1 + spatial,
        f"{option_name(name)} {sizes} must have {1 + spatial} sizes: time and {spatial} grid axes",
    )
    return sizes
