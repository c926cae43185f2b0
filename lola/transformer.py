"""The transformer's configuration, shared by diffusion models and neural solvers (Table 5)."""

import dataclasses

from lola.config import require
from lola.errors import ConfigError
from lola.network import NetworkConfig, Sizes, along_axes, each
from lola.nn.vit import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(NetworkConfig):
    """The architecture of the emulators' transformer; the defaults are those of the paper's latent models.

    Arguments:
        features: Features per token.
        blocks: The number of blocks.
        heads: Attention heads.
        patch_size: Cells per token along every grid axis, or sizes along time and each grid axis.
        ffn_factor: Width of the feed-forward networks over `features`.
        qk_norm: Whether queries and keys are normalised.
        rope: Whether attention sees relative positions.
    """

    features: int = 1024
    blocks: int = 16
    heads: int = 8
    patch_size: Sizes = 1
    ffn_factor: int = 4
    qk_norm: bool = True
    rope: bool = True

    def validate(self) -> None:
        super().validate()
        sizes = (self.features, self.blocks, self.heads, self.ffn_factor, *each(self.patch_size))
        require(min(sizes) > 0, "features, blocks, heads, ffn_factor and patch_size must be positive")
        require(
            self.features % (2 * self.heads) == 0,
            f"{self.features} features do not split into {self.heads} heads of even size; "
            f"choose a multiple of {2 * self.heads}",
        )
        require(self.features >= 4, "features must be at least 4")

    def patches(self, spatial: int) -> tuple[int, ...]:
        """Sizes of a patch along time and each of `spatial` grid axes."""
        return along_axes("patch_size", self.patch_size, 1, spatial)

    def check_grid(self, grid: tuple[int, ...], window: int) -> None:
        """Raise `ConfigError` unless patches tile windows of `window` states on the grid."""
        patches = self.patches(len(grid))
        for name, size, patch in zip(
            ("window", *["grid axis"] * len(grid)), (window, *grid), patches, strict=True
        ):
            if size % patch:
                raise ConfigError(
                    f"patches of {patch} do not tile a {name} of {size}; choose a divisor of {size}"
                )

    def build(self, channels: int, spatial: int, modulated: bool) -> Transformer:
        """The transformer that maps fields and mask, `2 channels`, to `channels`."""
        return Transformer(
            2 * channels,
            channels,
            self.modulation if modulated else 0,
            features=self.features,
            blocks=self.blocks,
            heads=self.heads,
            patch_size=self.patches(spatial),
            ffn_factor=self.ffn_factor,
            dropout=self.dropout,
            qk_norm=self.qk_norm,
            rope=self.rope,
        )
