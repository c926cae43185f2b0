"""The networks that are timed, ours and their plain baselines, with the data that they see."""

import dataclasses
from collections.abc import Callable

import torch
from benchmarks.configs import CaseSize, Network
from benchmarks.plain_autoencoder import PlainAutoencoder
from benchmarks.plain_transformer import PlainTransformer
from torch import Tensor, nn

from lola.models.autoencoder import LOSSES
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.transformer_config import TransformerConfig

WINDOW = 5
FIELDS = {2: 5, 3: 6}
LATENTS = 64

# At these widths the arithmetic of convolutions and products fills two cores
WIDE_AUTOENCODERS = {
    2: AutoencoderConfig(channels=(64, 128, 256), blocks=(1, 1, 1), dropout=0.0),
    3: AutoencoderConfig(channels=(64, 128), blocks=(1, 1), dropout=0.0),
}
WIDE_TRANSFORMER = TransformerConfig(features=512, blocks=4, heads=8, modulation=256, dropout=0.0)

AUTOENCODER_GRIDS: dict[tuple[int, CaseSize], tuple[int, ...]] = {
    (2, "demo"): (16, 64, 64),
    (2, "wide"): (2, 128, 128),
    (3, "demo"): (4, 32, 32, 32),
    (3, "wide"): (1, 24, 24, 24),
}
LATENT_GRIDS: dict[CaseSize, tuple[int, ...]] = {"demo": (16, 4, 4), "wide": (4, 8, 8)}


@dataclasses.dataclass(frozen=True)
class TimedCase:
    """A network in two writings, with what a training step needs.

    Arguments:
        ours, plain: The same network, with the same weights.
        inputs: The arguments of its forward pass.
        loss: The objective of its output.
        channels_last: The memory format that suits the plain implementation, unless it is the default.
    """

    ours: nn.Module
    plain: nn.Module
    inputs: tuple[Tensor, ...]
    loss: Callable[[Tensor], Tensor]
    channels_last: torch.memory_format | None = None


def build_case(
    network: Network, size: CaseSize, autoencoder: AutoencoderConfig, transformer: TransformerConfig
) -> TimedCase:
    """A network at a size; that of `demo` is the given configuration, that of `wide` is fixed."""
    torch.manual_seed(0)
    if network == "transformer":
        return _transformer(transformer if size == "demo" else WIDE_TRANSFORMER, LATENT_GRIDS[size])
    spatial = 2 if network == "autoencoder-2d" else 3
    config = autoencoder if size == "demo" else WIDE_AUTOENCODERS[spatial]
    return _autoencoder(config, AUTOENCODER_GRIDS[spatial, size])


def _autoencoder(config: AutoencoderConfig, shape: tuple[int, ...]) -> TimedCase:
    batch, *grid = shape
    spatial = len(grid)
    ours = config.build(FIELDS[spatial], spatial)
    plain = PlainAutoencoder(config, FIELDS[spatial], spatial)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(batch, FIELDS[spatial], *grid)
    return TimedCase(
        ours=ours,
        plain=plain,
        inputs=(x,),
        loss=lambda y: LOSSES[config.loss](x, y.float(), None),
        channels_last=torch.channels_last if spatial == 2 else torch.channels_last_3d,
    )


def _transformer(config: TransformerConfig, shape: tuple[int, ...]) -> TimedCase:
    batch, *grid = shape
    ours = config.build(LATENTS, len(grid), modulated=True)
    plain = PlainTransformer(config, 2 * LATENTS, LATENTS)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(batch, 2 * LATENTS, WINDOW, *grid)
    target = torch.randn(batch, LATENTS, WINDOW, *grid)
    return TimedCase(
        ours=ours,
        plain=plain,
        inputs=(x, torch.randn(batch, config.modulation)),
        loss=lambda y: (y.float() - target).square().mean(),
    )
