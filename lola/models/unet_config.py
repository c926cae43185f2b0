"""The U-Net's configuration, an alternative to the transformer in diffusion models and neural solvers."""

import dataclasses
from typing import TYPE_CHECKING

from lola.core.config import Channels, NonEmpty, require
from lola.core.errors import ConfigError
from lola.models.levels import Blocks, LevelsConfig
from lola.models.network import NetworkConfig, along_axes, as_tuple

if TYPE_CHECKING:
    from lola.nn.unet import UNet


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig(NetworkConfig, LevelsConfig):
    """The architecture of a U-Net over time and grid.

    Arguments:
        blocks: Residual blocks of each level, on the way down and again on the way up.
        kernel_size: Width of the convolutions along time and every grid axis, or sizes along each; odd.
        stride: Down-sampling between levels along every grid axis, or factors along time and each grid axis.
    """

    kind_name = "unet"

    channels: NonEmpty[Channels] = (64, 128, 256)
    blocks: NonEmpty[Blocks] = (3, 3, 3)

    def kernels(self, spatial: int) -> tuple[int, ...]:
        """Sizes of the convolutions along time and each of `spatial` grid axes."""
        return along_axes("kernel_size", self.kernel_size, as_tuple(self.kernel_size)[0], spatial)

    def strides(self, spatial: int) -> tuple[int, ...]:
        """Down-sampling between levels along time and each of `spatial` grid axes."""
        return along_axes("stride", self.stride, 1, spatial)

    def check_grid(self, grid: tuple[int, ...], window: int) -> None:
        """Raise `ConfigError` unless the down-sampling divides the grid; a window may have any length."""
        halves = [size // 2 if self.periodic else 0 for size in self.kernels(len(grid))[1:]]
        for size, stride, half in zip(grid, self.strides(len(grid))[1:], halves, strict=True):
            factor = stride ** (len(self.channels) - 1)
            if size % factor:
                raise ConfigError(
                    f"the U-Net's down-sampling {factor} does not divide a grid axis of {size}; "
                    f"take a multiple of {factor}, a smaller --stride or fewer levels (--channels, --blocks)"
                )
            require(
                size // factor >= half,
                f"--kernel-size wraps more than once around {size // factor} cells",
            )

    def build(self, channels: int, spatial: int, modulated: bool) -> "UNet":
        """The U-Net that maps fields and mask, `2 channels`, to `channels`."""
        from lola.nn.unet import UNet

        return UNet(
            2 * channels,
            channels,
            self.modulation if modulated else 0,
            channels=self.channels,
            blocks=self.blocks,
            heads=self.heads_per_level,
            kernel_size=self.kernels(spatial),
            stride=self.strides(spatial),
            ffn_factor=self.ffn_factor,
            dropout=self.dropout,
            norm=self.norm,
            periodic=self.periodic,
            identity_init=self.identity_init,
        )
