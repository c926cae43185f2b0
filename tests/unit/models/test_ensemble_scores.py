import itertools

import numpy as np
import pytest
import torch

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.ensemble_scores import almost_fair_crps, energy_scores, weighted_mean
from lola.models.masks import draw_mask
from lola.models.transformer_config import TransformerConfig


@pytest.mark.parametrize("alpha", [0.95, 1.0])
@pytest.mark.parametrize("members", [2, 5])
def test_the_crps_is_the_double_sum(alpha, members):
    torch.manual_seed(0)
    ensemble, x = torch.randn(3, members, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    weight = (1 - (1 - alpha) / members) / (2 * members * (members - 1))
    expected = torch.zeros(3, 2, dtype=torch.float64)
    for j in range(members):
        expected += (ensemble[:, j] - x).abs() / members
        for k in range(members):
            expected -= weight * (ensemble[:, j] - ensemble[:, k]).abs()
    torch.testing.assert_close(almost_fair_crps(ensemble, x, alpha), expected)


def test_equal_members_have_no_gradient_of_their_distance():
    ensemble = torch.zeros(1, 4, 1, 1, 2, 2, requires_grad=True)
    x = torch.ones(1, 1, 1, 2, 2)
    almost_fair_crps(ensemble, x, 0.95).sum().backward()
    assert torch.equal(ensemble.grad, torch.full_like(ensemble, -0.25))
    ensemble.grad = None
    energy_scores(ensemble, x, 0.95, 2)[0].sum().backward()
    torch.testing.assert_close(ensemble.grad, torch.full_like(ensemble, -1 / 16))


@pytest.mark.parametrize("grid", [(7,), (5, 4), (3, 2, 4)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_energy_score_is_the_double_sum_over_blocks(grid, masked):
    torch.manual_seed(0)
    members, block, alpha = 3, 2, 0.95
    ensemble = torch.randn(2, members, 3, 2, *grid, dtype=torch.float64)
    x = torch.randn(2, 3, 2, *grid, dtype=torch.float64)
    valid = torch.rand(2, 1, 1, *grid) > 0.3 if masked else None
    scores, cells = energy_scores(ensemble, x, alpha, block, valid)
    weight = (1 - (1 - alpha) / members) / (2 * members * (members - 1))
    inside = np.ones((2, *grid), dtype=bool) if valid is None else valid[:, 0, 0].numpy()
    for sample, state in itertools.product(range(2), range(2)):
        for place in itertools.product(*(range(-(-size // block)) for size in grid)):
            region = tuple(slice(block * i, block * (i + 1)) for i in place)
            chosen = inside[sample][region]
            assert cells[(sample, 0, 0, *place)] == chosen.sum()
            if not chosen.any():
                continue
            truth = x[sample, :, state][(slice(None), *region)].numpy()[:, chosen]
            drawn = ensemble[sample, :, :, state][(slice(None), slice(None), *region)].numpy()[:, :, chosen]
            distance = lambda one, other: np.sqrt(np.mean((one - other) ** 2))  # noqa: E731
            expected = np.mean([distance(one, truth) for one in drawn])
            expected -= weight * sum(distance(one, other) for one in drawn for other in drawn)
            np.testing.assert_allclose(scores[(sample, 0, state, *place)], expected)


def test_the_energy_score_of_single_elements_is_the_crps():
    torch.manual_seed(0)
    ensemble, x = torch.randn(2, 4, 1, 3, 5), torch.randn(2, 1, 3, 5)
    scores, cells = energy_scores(ensemble, x, 0.95, 1)
    torch.testing.assert_close(scores, almost_fair_crps(ensemble, x, 0.95))
    assert (cells == 1).all()


def test_the_energy_score_sees_what_the_crps_does_not():
    """Members with the right distribution of every cell, but independent cells where the truth has none.

    The expected scores are 0.56 and, for many cells, E sqrt(1 + x^2) - 1 / sqrt(2) = 0.65.
    """
    torch.manual_seed(0)
    common, own = torch.randn(500, 9, 1, 1, 1), torch.randn(500, 9, 1, 1, 16)
    smooth, rough = common.expand_as(own), own
    found = {}
    for name, drawn in (("smooth", smooth), ("rough", rough)):
        ensemble, x = drawn[:, 1:], smooth[:, 0]
        scores, _ = energy_scores(ensemble, x, 1.0, 16)
        found[name] = float(scores.mean()), float(almost_fair_crps(ensemble, x, 1.0).mean())
    assert found["rough"][1] == pytest.approx(found["smooth"][1], rel=0.05)
    assert found["smooth"][0] == pytest.approx(0.56, abs=0.03)
    assert found["rough"][0] == pytest.approx(0.65, abs=0.03)


def test_the_objective_is_the_sum_with_its_weight():
    network = TransformerConfig(features=16, blocks=1, heads=2, modulation=8, patch_size=1, dropout=0.0)
    keys = [(1, i) for i in range(3)]
    torch.manual_seed(0)
    batch = Batch(states=torch.randn(3, 2, 3, 6), parameters=torch.zeros(3, 0))
    losses, seen = [], []
    for energy in (0.0, 0.5):
        torch.manual_seed(1)
        config = CRPSEnsembleConfig(network=network, members=3, energy=energy, energy_block=4)
        model = config.build(2, 0, 1, 3)
        torch.nn.init.normal_(model.embed_noise[-1].weight)
        model.network.register_forward_hook(lambda module, inputs, output: seen.append(output))
        losses.append(model.loss(batch, SampleGenerator(keys))[0])
    assert torch.equal(*seen)
    scores, cells = energy_scores(seen[0].unflatten(0, (3, 3)), batch.states, 0.95, 4)
    unknown = ~draw_mask(batch.states, SampleGenerator(keys))
    torch.testing.assert_close(losses[1], losses[0] + 0.5 * weighted_mean(scores, cells * unknown))
