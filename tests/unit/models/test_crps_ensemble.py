import math

import numpy as np
import pytest
import scoringrules
import torch
from gradients import without_gradient
from scipy.stats import norm

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.emulation.emulator import Emulator
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.ensemble_scores import almost_fair_crps
from lola.models.masks import context_mask, draw_mask, unknown_mean
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig

NETWORKS = {
    "transformer": TransformerConfig(features=16, blocks=2, heads=2, modulation=8, patch_size=2, dropout=0.0),
    "unet": UNetConfig(channels=(8, 16), blocks=(1, 1), modulation=8, attention_heads=((1, 2),), dropout=0.0),
}
SIZES = {"channels": 3, "parameters": 2, "spatial": 2, "window": 4}
KEYS = [(3, i) for i in range(5)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    return Batch(states=torch.randn(5, 3, 4, 4, 6), parameters=torch.randn(5, 2))


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


@pytest.fixture
def model(network):
    """An ensemble whose members differ."""
    model = CRPSEnsembleConfig(network=network).build(**SIZES).eval()
    torch.nn.init.normal_(model.embed_noise[-1].weight)
    return model


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("members", [2, 3, 8])
def test_the_score_is_that_of_scoringrules(alpha, members):
    ensemble, truth = torch.randn(7, members, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    fair, finite = (
        scoringrules.crps_ensemble(truth.numpy(), ensemble.numpy(), m_axis=1, estimator=estimator)
        for estimator in ("fair", "nrg")
    )
    found = almost_fair_crps(ensemble, truth, alpha).numpy()
    np.testing.assert_allclose(found, alpha * fair + (1 - alpha) * finite, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1.5, 0.5), (-0.3, 2.0)])
@pytest.mark.parametrize("members", [2, 5])
def test_the_expected_score_of_a_gaussian_ensemble_is_the_closed_form(mean, deviation, members):
    """E|X - y| - (1 - (1 - alpha) / M) sigma / sqrt(pi); for alpha = 1 the CRPS of the distribution."""
    truth, alpha = 0.4, 0.95
    z = (truth - mean) / deviation
    distance = deviation * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z))
    ensemble = mean + deviation * torch.randn(100_000, members, dtype=torch.float64)
    for weight in (alpha, 1.0):
        scores = almost_fair_crps(ensemble, torch.full((100_000,), truth, dtype=torch.float64), weight)
        expected = distance - (1 - (1 - weight) / members) * deviation / math.sqrt(math.pi)
        error = scores.std() / math.sqrt(len(scores))
        assert abs(scores.mean() - expected) < 4 * error
    assert expected == pytest.approx(float(scoringrules.crps_normal(truth, mean, deviation)))


def test_an_ensemble_starts_as_the_deterministic_solver_of_its_weights(network, batch):
    solver = NeuralSolverConfig(network=network).build(**SIZES).eval()
    model = CRPSEnsembleConfig(network=network).build(**SIZES).eval()
    missing, surplus = model.load_state_dict(solver.state_dict(), strict=False)
    assert not surplus
    assert {name.split(".")[0] for name in missing} == {"embed_noise"}
    mask = draw_mask(batch.states, SampleGenerator(KEYS))
    estimate = solver(batch.states, mask, batch.parameters)
    assert torch.equal(model(batch.states, mask, batch.parameters, torch.randn(5, 32)), estimate)
    loss, diagnostics = model.loss(batch, SampleGenerator(KEYS))
    torch.testing.assert_close(loss, unknown_mean((estimate - batch.states).abs(), mask))
    assert diagnostics["unknown_variance"] < 1e-10


def test_every_parameter_is_trained(network, batch):
    model = CRPSEnsembleConfig(network=network).build(**SIZES)
    loss, _ = model.loss(batch, SampleGenerator(KEYS))
    loss.backward()
    # The layer after it is zero at first
    assert without_gradient(model) == ["embed_noise.0.weight", "embed_noise.0.bias"]
    torch.optim.SGD(model.parameters(), 0.1).step()
    model.zero_grad()
    model.loss(batch, SampleGenerator(KEYS))[0].backward()
    assert not without_gradient(model)


def test_members_of_a_sample_share_its_mask_and_known_states_do_not_count(model, batch):
    seen = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.loss(batch, SampleGenerator(KEYS))
    masks = seen[0][:, 3:].unflatten(0, (5, model.config.members))
    assert torch.equal(masks, masks[:, :1].expand_as(masks))
    mask = draw_mask(batch.states, SampleGenerator(KEYS))
    assert torch.equal(masks[:, 0], mask.expand(-1, 3, -1, 4, 6).float())


def test_loss_of_a_batch_is_the_weighted_mean_of_its_slices(model, batch):
    total, diagnostics = model.loss(batch, SampleGenerator(KEYS))
    found = dict.fromkeys(("loss", *diagnostics), 0.0)
    for part in (slice(0, 2), slice(2, 5)):
        piece = Batch(states=batch.states[part], parameters=batch.parameters[part])
        loss, more = model.loss(piece, SampleGenerator(KEYS[part]))
        for name, value in {"loss": loss, **more}.items():
            found[name] += len(piece) / 5 * value
    for name, value in {"loss": total, **diagnostics}.items():
        torch.testing.assert_close(value, found[name])


def test_cells_outside_of_the_domain_are_left_out(model, batch):
    valid = torch.ones(5, 1, 1, 4, 6, dtype=torch.bool)
    valid[..., :2] = False
    other = torch.where(valid, batch.states, batch.states + 1e3)
    mask = draw_mask(batch.states, SampleGenerator(KEYS))
    other = torch.where(mask, batch.states, other)  # what is known is seen
    losses = [
        model.loss(Batch(states=states, parameters=batch.parameters, valid=valid), SampleGenerator(KEYS))[0]
        for states in (batch.states, other)
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize("bound", [False, True])
def test_members_are_functions_of_their_keys_alone(model, bound):
    context, parameters = torch.randn(1, 3, 1, 4, 6), torch.randn(1, 2)
    keys = [(0, "t", member) for member in range(4)]
    emulator = Emulator(model=model)
    assert emulator.stochastic

    def roll(keys):
        n = len(keys)
        windows = emulator.rollout(context.expand(n, *context.shape[1:]), parameters.expand(n, -1), 6, keys)
        return torch.cat(list(windows), dim=2)

    if not bound:
        model.bind = lambda *_, **__: None
    together = roll(keys)
    assert len({float(member.sum()) for member in together}) == 4
    for part in (keys[:1], keys[2:], keys[::-1]):
        for key, member in zip(part, roll(part), strict=True):
            torch.testing.assert_close(member, together[keys.index(key)], rtol=1e-4, atol=1e-5)
    # windows draw noise of their own: the second one does not repeat the first
    assert not torch.allclose(together[:, :, :3], together[:, :, 3:])


def test_a_bound_network_draws_the_same_windows(model, batch):
    mask = context_mask(batch.states[:1], 2)
    for parameters in (batch.parameters, batch.parameters[:1].expand(5, -1)):
        plain = model.predict(batch.states, mask, parameters, SampleGenerator(KEYS))
        bound = model.bind(mask, parameters)
        with torch.no_grad():
            found = model.predict(batch.states, mask, parameters, SampleGenerator(KEYS), bound)
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
        assert torch.equal(found[:, :, :2], batch.states[:, :, :2])


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_systems_without_parameters_and_any_axes(spatial, network):
    sizes = SIZES | {"parameters": 0, "spatial": spatial, "window": 3}
    model = CRPSEnsembleConfig(network=network, members=2).build(**sizes)
    torch.nn.init.normal_(model.embed_noise[-1].weight)
    data = Batch(states=torch.randn(2, 3, 3, *(4, 2, 6)[:spatial]), parameters=torch.zeros(2, 0))
    model.loss(data, SampleGenerator(KEYS[:2]))[0].backward()
    assert not without_gradient(model)


def gaussian_batch(count, generator):
    """Windows of two states, of which the second is half the first and noise of deviation 0.5."""
    first, noise = torch.randn(2, count, 1, 1, 1, generator=generator)
    return Batch(states=torch.cat((first, (first + noise) / 2), dim=2), parameters=torch.zeros(count, 0))


def test_training_makes_a_gaussian_ensemble_calibrated():
    network = TransformerConfig(features=16, blocks=1, heads=2, modulation=16, patch_size=1, dropout=0.0)
    model = CRPSEnsembleConfig(network=network).build(channels=1, parameters=0, spatial=1, window=2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(200):
        batch = gaussian_batch(64, generator)
        loss, _ = model.loss(batch, SampleGenerator([(step, i) for i in range(64)]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 200)
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-30:]) < 0.6 * np.mean(losses[:5]), losses
    test, members = gaussian_batch(500, generator).states, 16
    mask = context_mask(test[:1], 1)
    rows = test.repeat_interleave(members, dim=0)
    keys = [("test", i) for i in range(len(rows))]
    with torch.no_grad():
        drawn = model.eval().predict(rows, mask, torch.zeros(len(rows), 0), SampleGenerator(keys))
    ensemble, truth = drawn[:, 0, 1, 0].unflatten(0, (-1, members)), test[:, 0, 1, 0]
    skill = (ensemble.mean(dim=1) - truth).square().mean().sqrt()
    spread = ((members + 1) / members * ensemble.var(dim=1).mean()).sqrt()
    assert float(spread / skill) == pytest.approx(1, abs=0.15)
    crps = almost_fair_crps(ensemble, truth, alpha=1.0).mean()
    assert float(crps) == pytest.approx(0.5 / math.sqrt(math.pi), rel=0.1)
