"""The U-Net's configuration, an alternative to the transformer in diffusion models and neural solvers."""

import dataclasses
from typing import TYPE_CHECKING

from lola.core.config import Channels, Each, Factor, Share, require
from lola.core.errors import ConfigError
from lola.models.levels import Blocks, Heads, check_levels, heads_per_level
from lola.models.network import Kernels, NetworkConfig, Sizes, along_axes, as_tuple
from lola.nn.norms import Norm

if TYPE_CHECKING:
    from lola.nn.unet import UNet


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig(NetworkConfig):
    """The architecture of a U-Net over time and grid.

    Arguments:
        channels: Channels of each level.
        blocks: Residual blocks of each level, on the way down and again on the way up.
        kernel_size: Width of the convolutions along time and every grid axis, or sizes along each; odd.
        stride: Down-sampling between levels along every grid axis, or factors along time and each grid axis.
        attention_heads: Pairs (level, heads) of the levels with attention over all cells of a window.
        ffn_factor: Channels within a block over those outside.
        dropout: Probability of dropping within a block.
        periodic: Whether convolutions wrap around the grid.
        norm: The normalisation within blocks: over channels, or over groups of them and the window.
        identity_init: Whether resampling convolutions start near the identity.
    """

    kind_name = "unet"

    channels: Each[Channels] = (64, 128, 256)
    blocks: Each[Blocks] = (3, 3, 3)
    kernel_size: Kernels = 3
    stride: Sizes = 2
    attention_heads: Heads = ()
    ffn_factor: Factor = 1
    dropout: Share = 0.05
    periodic: bool = False
    norm: Norm = "layer"
    identity_init: bool = True

    def validate(self) -> None:
        super().validate()
        check_levels(self.channels, self.blocks, self.attention_heads, self.norm)
        odd = all(size % 2 == 1 for size in as_tuple(self.kernel_size))
        require(odd, f"--kernel-size must be odd, not {self.kernel_size}")

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
            heads=heads_per_level(self.attention_heads, len(self.channels)),
            kernel_size=self.kernels(spatial),
            stride=self.strides(spatial),
            ffn_factor=self.ffn_factor,
            dropout=self.dropout,
            norm=self.norm,
            periodic=self.periodic,
            identity_init=self.identity_init,
        )
