r"""The transformer autoencoder: patches of the grid are tokens, and each becomes a latent cell.

    E(x) = transformer(space_to_depth(x)),  D(z) = depth_to_space(transformer(z))

Both are transformers of `lola.nn.transformer` over the axes of the grid, without modulation; a token and a
latent cell cover the same `patch_size` cells along each axis.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated

from lola.core.config import Size, Within
from lola.models.autoencoder_config import AutoencoderConfig, CodecConfig
from lola.models.transformer_config import BlocksConfig

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerAutoencoderConfig(CodecConfig, BlocksConfig):
    """A transformer autoencoder, with as many blocks in the encoder as in the decoder.

    Arguments:
        blocks: The number of blocks of the encoder, and of the decoder.
        patch_size: Cells per token along each axis: the down-sampling.
    """

    kind_name = "transformer"

    blocks: Annotated[int, Within("[1, 1024]")] = 8
    patch_size: Size = 32

    def factors(self, spatial: int) -> tuple[int, ...]:
        """Cells of the grid per cell of the latent grid, along each of `spatial` grid axes."""
        return (self.patch_size,) * spatial

    def networks(self, channels: int, spatial: int, outputs: int) -> "tuple[nn.Module, nn.Module]":
        """The encoder of `channels` fields on `spatial` grid axes to `outputs` channels, and the decoder."""
        from torch import nn

        from lola.nn.layers import DepthToSpace, SpaceToDepth

        cells, tokens = channels * self.patch_size**spatial, [1] * spatial
        encoder = self.transformer(cells, outputs, 0, tokens)
        decoder = self.transformer(self.latent_channels, cells, 0, tokens)
        return (
            nn.Sequential(SpaceToDepth(self.patch_size), encoder),
            nn.Sequential(decoder, DepthToSpace(self.patch_size)),
        )


AnyAutoencoder = AutoencoderConfig | TransformerAutoencoderConfig
