import pytest
import torch
from gradients import without_gradient

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.masks import context_mask, draw_mask
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig

SMALL = NeuralSolverConfig(
    network=TransformerConfig(features=16, blocks=2, heads=2, modulation=8, patch_size=2, dropout=0.0)
)
UNET = NeuralSolverConfig(
    network=UNetConfig(channels=(8, 16), blocks=(1, 1), modulation=8, attention_heads=((1, 2),), dropout=0.0)
)
KEYS = [(3, i) for i in range(5)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    return Batch(states=torch.randn(5, 3, 4, 4, 6), parameters=torch.randn(5, 2))


@pytest.fixture(params=[SMALL, UNET], ids=["transformer", "unet"])
def model(request):
    return request.param.build(channels=3, parameters=2, spatial=2, window=4).eval()


def test_unknown_elements_are_not_seen(model, batch):
    x, mask = batch.states, context_mask(batch.states, 2)
    other = torch.where(mask, x, torch.inf)
    assert torch.equal(model(x, mask, batch.parameters), model(other, mask, batch.parameters))
    other = torch.where(mask, x + 1, x)
    assert not torch.allclose(model(x, mask, batch.parameters), model(other, mask, batch.parameters))


def test_known_elements_are_kept(model, batch):
    x, mask = batch.states, context_mask(batch.states, 2)
    y = model.predict(x, mask, batch.parameters, SampleGenerator(KEYS))
    assert torch.equal(y[:, :, :2], x[:, :, :2])
    assert torch.equal(y[:, :, 2:], model(x, mask, batch.parameters)[:, :, 2:])


def test_loss_is_mean_regression_over_all_elements(model, batch):
    loss, _ = model.loss(batch, SampleGenerator(KEYS))
    mask = draw_mask(batch.states, SampleGenerator(KEYS))
    torch.testing.assert_close(
        loss, torch.nn.functional.mse_loss(model(batch.states, mask, batch.parameters), batch.states)
    )


def test_loss_of_a_batch_is_the_weighted_mean_of_its_slices(model, batch):
    total, diagnostics = model.loss(batch, SampleGenerator(KEYS))
    value = error = 0.0
    for part in (slice(0, 2), slice(2, 5)):
        piece = Batch(states=batch.states[part], parameters=batch.parameters[part])
        loss, more = model.loss(piece, SampleGenerator(KEYS[part]))
        value, error = value + len(piece) / 5 * loss, error + len(piece) / 5 * more["unknown_mse"]
    torch.testing.assert_close(total, value)
    torch.testing.assert_close(diagnostics["unknown_mse"], error)


@pytest.mark.parametrize("config", [SMALL, UNET], ids=["transformer", "unet"])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_systems_without_parameters_and_any_axes(spatial, config):
    model = config.build(channels=3, parameters=0, spatial=spatial, window=3)
    data = Batch(states=torch.randn(2, 3, 3, *(4, 2, 6)[:spatial]), parameters=torch.zeros(2, 0))
    loss, _ = model.loss(data, SampleGenerator(KEYS[:2]))
    loss.backward()
    assert not without_gradient(model)


def test_a_window_that_is_too_short_is_refused():
    with pytest.raises(ConfigError, match="at least 2 states"):
        SMALL.build(channels=3, parameters=2, spatial=2, window=1)


def test_configuration_survives_json():
    for config in (SMALL, UNET):
        assert NeuralSolverConfig.from_json(config.to_json()) == config
