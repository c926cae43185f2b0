import math

import pytest
import torch
from gradients import without_gradient

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.autoencoder import kl_divergence, saturate, vrmse
from lola.models.autoencoder_config import AutoencoderConfig

SMALL = AutoencoderConfig(latent_channels=6, channels=(8, 16), blocks=(1, 1), dropout=0.0)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def batch(size, channels, length, *grid):
    return Batch(states=torch.randn(size, channels, length, *grid), parameters=torch.zeros(size, 1))


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("pixel_shuffle", [True, False])
@pytest.mark.parametrize("periodic", [True, False])
def test_shapes(spatial, pixel_shuffle, periodic):
    config = SMALL.replace(patch_size=2, attention_heads=((1, 2),))
    config = config.replace(pixel_shuffle=pixel_shuffle, periodic=periodic)
    model = config.build(3, spatial)
    x = torch.randn(2, 3, *(4, 8, 12)[:spatial])
    z = model.encode(x)
    assert z.shape == (2, 6, *(1, 2, 3)[:spatial])
    assert model.decode(z).shape == x.shape
    assert x.numel() / z.numel() == config.compression(3, spatial)


@pytest.mark.parametrize("pixel_shuffle", [True, False])
def test_periodic_networks_commute_with_rolls_by_the_downsampling(pixel_shuffle):
    model = SMALL.replace(periodic=True, pixel_shuffle=pixel_shuffle, patch_size=2).build(3, 2)
    x = torch.randn(1, 3, 16, 24)
    rolled = x.roll((4, -8), (2, 3))
    torch.testing.assert_close(model.encode(rolled), model.encode(x).roll((1, -2), (2, 3)))
    torch.testing.assert_close(model(rolled), model(x).roll((4, -8), (2, 3)), atol=1e-5, rtol=1e-4)
    walled = SMALL.replace(patch_size=2, pixel_shuffle=pixel_shuffle).build(3, 2)
    assert not torch.allclose(walled(rolled), walled(x).roll((4, -8), (2, 3)), atol=1e-3)


def test_identity_init_starts_closer_to_the_state():
    """Copies survive down- and up-sampling when every level has enough channels for them."""
    config = SMALL.replace(latent_channels=32, channels=(8, 32), saturation="none")
    errors = []
    for identity_init in (True, False):
        model = config.replace(identity_init=identity_init).build(8, 2)
        # The field convolutions start at random; make them copies so that only resampling is seen
        for conv in (model.encoder.levels[0][0], model.decoder.levels[-1][-1]):
            torch.nn.init.dirac_(conv.weight)
            torch.nn.init.zeros_(conv.bias)
        x = torch.randn(2, 8, 8, 8)
        errors.append((model(x) - x).square().mean().item())
    assert errors[0] < 0.05
    assert errors[1] > 0.5


@pytest.mark.parametrize("saturation", ["softclip2", "softclip", "tanh"])
def test_bounded_saturations(saturation):
    z = torch.tensor([-1e3, -1e-3, 0.0, 1e-3, 1e3])
    bounded = saturate(z, saturation)
    assert bounded.abs().max() <= 5
    assert bounded[-1] > 4.9
    torch.testing.assert_close(bounded[1:4], z[1:4], rtol=1e-3, atol=0)


def test_softclip2_at_a_known_point():
    torch.testing.assert_close(saturate(torch.tensor(5.0), "softclip2"), torch.tensor(5 / math.sqrt(2)))


def test_unbounded_saturations():
    z = 10 * torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(saturate(z, "arcsinh").sinh(), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(saturate(z, "rmsnorm").square().mean(dim=1), torch.ones(2, 3, 3))
    assert saturate(z, "none") is z


def test_vrmse_of_the_mean_is_nearly_one_and_scales_with_the_error():
    x = torch.randn(2, 3, 64, 64) * 10 + 5
    mean = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(vrmse(x, mean), torch.tensor(1.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(vrmse(x, x + 0.3 * (mean - x)), torch.tensor(0.3), rtol=1e-3, atol=0)
    flat = torch.zeros(1, 1, 4, 4)
    torch.testing.assert_close(vrmse(flat, flat + 0.1), torch.tensor(1.0))


@pytest.mark.parametrize("loss", ["vrmse", "mse", "mae"])
def test_loss_of_a_batch_is_the_weighted_mean_of_its_slices(loss):
    model = SMALL.replace(loss=loss).build(3, 2)
    whole = batch(5, 3, 2, 8, 8)
    keys = [(0, i) for i in range(5)]
    total, diagnostics = model.loss(whole, SampleGenerator(keys))
    parts = []
    for part in (slice(0, 2), slice(2, 5)):
        piece = Batch(states=whole.states[part], parameters=whole.parameters[part])
        parts.append((len(piece) / 5, *model.loss(piece, SampleGenerator(keys[part]))))
    torch.testing.assert_close(total, sum(w * value for w, value, _ in parts))
    for name, value in diagnostics.items():
        torch.testing.assert_close(value, sum(w * d[name] for w, _, d in parts))
    if loss in diagnostics:
        torch.testing.assert_close(total, diagnostics[loss])


def test_training_reconstructs():
    model = SMALL.build(2, 2)
    x = torch.randn(4, 2, 1, 2, 2).repeat_interleave(4, dim=3).repeat_interleave(4, dim=4)
    data = Batch(states=x, parameters=torch.zeros(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = SampleGenerator([(i,) for i in range(4)])
    first = None
    for _ in range(60):
        loss, _ = model.loss(data, generator)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * first


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_group_norm(spatial):
    config = SMALL.replace(norm="group", channels=(8, 32), attention_heads=((1, 2),))
    model = config.build(3, spatial)
    x = torch.randn(2, 3, *[4] * spatial)
    assert model(x).shape == x.shape
    assert not torch.allclose(model(x), _with_weights_of(model, config.replace(norm="layer"))(x), atol=1e-4)


def _with_weights_of(model, config):
    other = config.build(3, model.encoder.levels[0][0].weight.ndim - 2)
    other.load_state_dict(model.state_dict())
    return other


VARIATIONAL = SMALL.replace(kl_weight=0.25, saturation="none")


def test_divergence_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(2, 3, 6, 4, 5)
    normal = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)
    assert kl_divergence(torch.zeros(3), torch.zeros(3)) == 0


def test_variational_loss_is_reconstruction_and_weighted_divergence():
    model = VARIATIONAL.build(3, 2).eval()
    data = batch(4, 3, 2, 8, 8)
    loss, diagnostics = model.loss(data, SampleGenerator([(i,) for i in range(4)]))
    x = data.states.transpose(1, 2).flatten(0, 1)
    mean, log_variance = model.encoder(x).chunk(2, dim=1)
    assert torch.equal(model.encode(x), mean)
    torch.testing.assert_close(diagnostics["kl"], kl_divergence(mean, log_variance))
    torch.testing.assert_close(loss, vrmse(x, model.decode(mean)) + 0.25 * diagnostics["kl"])


def test_training_draws_from_the_distribution():
    """With a decoder that hands latents through, their moments are those of the encoder."""
    model = VARIATIONAL.build(3, 1)
    mean, log_variance = model.encoder(torch.randn(1, 3, 4)).chunk(2, dim=1)
    n = 4000
    generator = SampleGenerator([(i,) for i in range(n)])
    z = model._draw(mean.expand(n, -1, -1), log_variance.expand(n, -1, -1), generator).detach()
    torch.testing.assert_close(z.mean(dim=0), mean[0].detach(), atol=0.1, rtol=0)
    torch.testing.assert_close(z.var(dim=0).log(), log_variance[0].detach(), atol=0.1, rtol=0)


@pytest.mark.parametrize("config", [VARIATIONAL, SMALL.replace(latent_noise=0.5)])
def test_noise_acts_in_training_alone_and_depends_on_each_samples_key(config):
    model = config.build(3, 2)
    data = batch(4, 3, 2, 8, 8)
    keys = [(7, i) for i in range(4)]

    def losses(first, last, keys=keys):
        piece = Batch(states=data.states[first:last], parameters=data.parameters[first:last])
        return model.loss(piece, SampleGenerator(keys[first:last]))[0]

    torch.testing.assert_close(losses(0, 4), (losses(0, 3) * 3 + losses(3, 4)) / 4)
    assert not torch.equal(losses(0, 4), losses(0, 4, [(8, i) for i in range(4)]))
    model.eval()
    assert torch.equal(losses(0, 4), losses(0, 4, [(8, i) for i in range(4)]))


def test_latent_noise_has_the_given_deviation():
    model = SMALL.replace(latent_noise=0.3).build(3, 1)
    z = torch.zeros(2000, 6, 4)
    assert abs(model._draw(z, None, SampleGenerator([(i,) for i in range(1000)])).std().item() - 0.3) < 0.01


def test_every_parameter_of_a_variational_autoencoder_learns():
    model = VARIATIONAL.build(3, 2)
    model.loss(batch(4, 3, 1, 8, 8), SampleGenerator([(i,) for i in range(4)]))[0].backward()
    assert not without_gradient(model)


def test_published_sizes():
    with torch.device("meta"):
        planar = AutoencoderConfig().build(5, 2)
        solid = AutoencoderConfig(channels=(64, 256, 512, 1024), blocks=(3, 3, 3, 3)).build(6, 3)
    assert round(sum(p.numel() for p in planar.parameters()) / 1e6) == 313
    assert round(sum(p.numel() for p in solid.parameters()) / 1e6) == 741
    assert [AutoencoderConfig(latent_channels=c).compression(5, 2) for c in (64, 16, 4)] == [80, 320, 1280]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": (1,)}, "levels"),
        ({"channels": (), "blocks": ()}, "--channels must name at least one"),
        ({"channels": (1, 8)}, r"--channels must be in \[2, 65536\], not 1"),
        ({"kernel_size": 2}, "odd"),
        ({"latent_channels": 0}, "--latent-channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention_heads": ((2, 4),)}, "level 2"),
        ({"attention_heads": ((1, 3),)}, "3 --attention-heads"),
        ({"saturation": "clip"}, "'clip'"),
        ({"loss": "rmse"}, "'rmse'"),
        ({"norm": "batch"}, "'batch'"),
        ({"norm": "group", "channels": (8, 24)}, "24 do not split into 16 groups"),
        ({"kl_weight": -1.0}, "--kl-weight"),
        ({"latent_noise": math.nan}, "--latent-noise must be a finite number, not nan"),
    ],
)
def test_impossible_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        SMALL.replace(**changes)


def test_a_grid_that_the_downsampling_does_not_divide():
    SMALL.check_grid((8, 6))
    with pytest.raises(ConfigError, match="down-sampling 2 does not divide a grid of 8 x 7"):
        SMALL.check_grid((8, 7))
    with pytest.raises(ConfigError, match="8 x 7"):
        SMALL.build(3, 2).encode(torch.randn(1, 3, 8, 7))


def test_configuration_survives_json():
    config = SMALL.replace(attention_heads=((1, 2),))
    assert AutoencoderConfig.from_json(config.to_json()) == config
