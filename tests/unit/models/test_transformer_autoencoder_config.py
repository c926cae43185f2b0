import pytest
import torch
from gradients import without_gradient

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig

SMALL = TransformerAutoencoderConfig(
    latent_channels=6, patch_size=2, features=16, blocks=1, heads=2, dropout=0.0
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("kl_weight", [0.0, 0.1])
def test_shapes_and_rate(spatial, kl_weight):
    config = SMALL.replace(kl_weight=kl_weight)
    model = config.build(3, spatial)
    x = torch.randn(2, 3, *(4, 8, 12)[:spatial])
    z = model.encode(x)
    assert z.shape == (2, 6, *(2, 4, 6)[:spatial])
    assert model.decode(z).shape == x.shape
    assert x.numel() / z.numel() == config.compression(3, spatial)
    assert z.abs().max() < 5


def test_every_latent_cell_is_that_of_its_patch():
    """Without blocks to mix tokens, or positions, a change within a patch reaches its latent cell alone."""
    model = SMALL.replace(blocks=1).build(3, 2)
    (transformer,) = (part for part in model.encoder if hasattr(part, "blocks"))
    transformer.blocks = torch.nn.ModuleList()
    x = torch.randn(1, 3, 8, 6)
    other = x.clone()
    other[:, :, 4:6, 2:4] += 1
    changed = (model.encode(x) != model.encode(other)).any(dim=1)[0]
    assert changed.nonzero().tolist() == [[2, 1]]


def test_every_token_affects_every_latent():
    model = SMALL.build(3, 2)
    x = torch.randn(1, 3, 8, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.encoder(x)[0, 0, 0, 0], x)
    assert gradient.abs().sum(dim=(0, 1)).min() > 0


def test_training_reconstructs():
    model = SMALL.build(2, 2)
    x = torch.randn(8, 2, 1, 2, 2).repeat_interleave(4, dim=3).repeat_interleave(4, dim=4)
    data = Batch(states=x, parameters=torch.zeros(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss, diagnostics = model.loss(data, SampleGenerator([(i,) for i in range(8)]))
        optimizer.zero_grad()
        loss.backward()
        assert not without_gradient(model)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert set(diagnostics) == {"vrmse", "mse"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 0}, "--patch-size must be in"),
        ({"heads": 3}, "do not split into 3 --heads of even size"),
        ({"blocks": 0}, "--blocks must be in"),
        ({"latent_channels": 0}, "--latent-channels must be in"),
        ({"dropout": 1.5}, "--dropout must be in"),
    ],
)
def test_impossible_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        SMALL.replace(**changes)


def test_a_grid_that_patches_do_not_tile():
    with pytest.raises(ConfigError, match="down-sampling 2 does not divide a grid of 8 x 7"):
        SMALL.build(3, 2).encode(torch.randn(1, 3, 8, 7))


def test_configuration_survives_json():
    assert TransformerAutoencoderConfig.from_json(SMALL.to_json()) == SMALL
