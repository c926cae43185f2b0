"""The levels of convolutional networks: options that autoencoders and U-Nets share, and their checks."""

import dataclasses
from typing import Annotated, get_args

from lola.core.config import (
    Channels,
    Config,
    Factor,
    Fraction,
    ListRule,
    NonEmpty,
    NonNegativeInt,
    Size,
    Within,
    require,
)
from lola.models.network import Kernels, Sizes, as_tuple
from lola.nn.norms import Norm, group_count

Heads = Annotated[tuple[tuple[NonNegativeInt, Size], ...], ListRule(empty=True)]
Blocks = Annotated[int, Within("[0, 1024]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LevelsConfig(Config):
    """The levels of a convolutional network.

    Arguments:
        channels: Channels of each level.
        blocks: Residual blocks of each level.
        kernel_size: Width of the convolutions along every axis, or along each; odd.
        stride: Down-sampling between levels along every axis, or along each.
        attention_heads: Pairs (level, heads) of the levels with attention.
        ffn_factor: Channels within a block over those outside.
        dropout: Probability of dropping within a block.
        periodic: Whether convolutions wrap around the grid.
        norm: The normalisation within blocks: over channels, or over groups of them and all positions.
        identity_init: Whether resampling and latent convolutions start near the identity.
    """

    channels: NonEmpty[Channels]
    blocks: NonEmpty[Blocks]
    kernel_size: Kernels = 3
    stride: Sizes = 2
    attention_heads: Heads = ()
    ffn_factor: Factor = 1
    dropout: Fraction = 0.05
    periodic: bool = False
    norm: Norm = "layer"
    identity_init: bool = True

    def validate(self) -> None:
        super().validate()
        require(
            len(self.channels) == len(self.blocks),
            f"--channels has {len(self.channels)} levels and --blocks {len(self.blocks)}; "
            "give both the same number",
        )
        require(self.norm in get_args(Norm), f"no normalisation is called {self.norm!r}")
        for n in self.channels:
            require(
                self.norm != "group" or n % group_count(n) == 0,
                f"--channels {n} do not split into {group_count(n)} groups; "
                f"choose a multiple of {group_count(n)}",
            )
        levels = [level for level, _ in self.attention_heads]
        require(len(set(levels)) == len(levels), f"--attention-heads contains duplicate levels: {levels}")
        for level, heads in self.attention_heads:
            require(
                level < len(self.channels), f"--attention-heads names level {level}, which does not exist"
            )
            require(
                self.channels[level] % heads == 0,
                f"{self.channels[level]} --channels of level {level} do not split into {heads} "
                "--attention-heads",
            )
        odd = all(size % 2 == 1 for size in as_tuple(self.kernel_size))
        require(odd, f"--kernel-size must be odd, not {self.kernel_size}")

    @property
    def heads_per_level(self) -> tuple[int, ...]:
        """Attention heads of every level; 0 is no attention."""
        return tuple(dict(self.attention_heads).get(level, 0) for level in range(len(self.channels)))
