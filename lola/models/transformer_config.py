"""Configurations of transformers: of their blocks, and of the emulators' network (Table 5)."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from lola.core.config import Config, Factor, Fraction, Size, Within, require
from lola.core.errors import ConfigError
from lola.models.network import NetworkConfig, Sizes, along_axes

if TYPE_CHECKING:
    from lola.nn.transformer import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlocksConfig(Config):
    """The blocks of a transformer: options shared by autoencoders and emulators.

    Arguments:
        features: Features per token.
        blocks: The number of blocks.
        heads: Attention heads.
        ffn_factor: Width of the feed-forward networks over `features`.
        dropout: Probability of dropping within the feed-forward networks.
        qk_norm: Whether queries and keys are normalised.
        rope: Whether attention sees relative positions.
    """

    features: Annotated[int, Within("[4, 65536]")] = 1024
    blocks: Annotated[int, Within("[1, 1024]")] = 16
    heads: Size = 8
    ffn_factor: Factor = 4
    dropout: Fraction = 0.05
    qk_norm: bool = True
    rope: bool = True

    def validate(self) -> None:
        super().validate()
        require(
            self.features % (2 * self.heads) == 0,
            f"{self.features} --features do not split into {self.heads} --heads of even size; "
            f"choose a multiple of {2 * self.heads}",
        )

    def transformer(
        self, inputs: int, outputs: int, modulation: int, patch_size: Sequence[int]
    ) -> "Transformer":
        """The transformer from `inputs` to `outputs` channels, over as many axes as patches have."""
        from lola.nn.transformer import Transformer

        return Transformer(
            inputs,
            outputs,
            modulation,
            features=self.features,
            blocks=self.blocks,
            heads=self.heads,
            patch_size=patch_size,
            ffn_factor=self.ffn_factor,
            dropout=self.dropout,
            qk_norm=self.qk_norm,
            rope=self.rope,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(NetworkConfig, BlocksConfig):
    """The emulators' transformer; the defaults are those of the paper's latent models.

    Arguments:
        patch_size: Cells per token along every grid axis, or sizes along time and each grid axis.
    """

    kind_name = "transformer"

    patch_size: Sizes = 1

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
                    f"a --patch-size of {patch} does not tile a {name} of {size}; choose a divisor of it"
                )

    def build(self, channels: int, spatial: int, modulated: bool) -> "Transformer":
        """The transformer that maps fields and mask, `2 channels`, to `channels`."""
        modulation = self.modulation if modulated else 0
        return self.transformer(2 * channels, channels, modulation, self.patches(spatial))
