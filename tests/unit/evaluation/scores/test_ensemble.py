import itertools

import numpy as np
import pytest
import torch
from benchmarks.plain_scoring import plain_scores

from lola.evaluation.scores import ensemble
from lola.evaluation.scores.ensemble import score_ensemble


def test_oracle(oracle, scores_of):
    u, v = oracle["u"], oracle["v"]
    found = scores_of(u, v, spatial=2)
    for name in ("skill", "spread", "vrmse"):
        torch.testing.assert_close(found[name], oracle[name], rtol=1e-5, atol=0)
    torch.testing.assert_close(found["vrmse_member"], oracle["vrmse_member"].mean(0), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("count", "grid", "block"),
    [
        *itertools.product([1, 2, 7], [(18,), (12, 17), (6, 7, 8)], [2**20]),
        (7, (12, 17), 1),
        (7, (12, 17), 2**14),
    ],
)
def test_one_pass_gives_what_plain_loops_give(monkeypatch, count, grid, block):
    monkeypatch.setitem(ensemble.BLOCK_BYTES, "cpu", block)
    targets = {name: 3 * torch.randn(2, 5, *grid).double() for name in ("truth", "autoencoded")}
    members = torch.randn(count, 2, 5, *grid).double()
    members[0, 1, 2, 3] = targets["truth"][1, 2, 3]  # ties
    found, own = score_ensemble(targets, members, spatial=len(grid))
    assert found.keys() == targets.keys()
    for name, truth in targets.items():
        plain = plain_scores(truth.numpy(), members.numpy())
        ours = found[name].metrics | found[name].spectra
        assert plain.keys() == ours.keys()
        for metric, expected in plain.items():
            np.testing.assert_allclose(ours[metric], expected, rtol=1e-7, atol=1e-12, err_msg=metric)
    torch.testing.assert_close(own.means, members.flatten(3).mean(-1))
    torch.testing.assert_close(own.largest, members.flatten(3).amax(-1))
    torch.testing.assert_close(own.smallest, members.flatten(3).amin(-1))


def test_a_constant_offset_is_the_skill(scores_of):
    u = torch.randn(3, 8, 12)
    found = scores_of(u, torch.stack([u + 0.25, u + 0.75]), spatial=2)
    torch.testing.assert_close(found["skill"], torch.full((3,), 0.5))
    torch.testing.assert_close(found["crps"], torch.full((3,), 0.25))
    torch.testing.assert_close(found["spread"], torch.full((3,), 0.25 * 3**0.5))


def test_normalisations_of_a_field_with_known_moments(scores_of):
    u = torch.tensor([1.0, 3.0]).repeat(8, 4)  # mean 2, mean square 5, variance 64 / 63
    found = scores_of(u, (u + 1)[None], spatial=2)
    assert found["nrmse"].item() == pytest.approx(5**-0.5, rel=1e-6)
    assert found["vrmse"].item() == pytest.approx((63 / 64) ** 0.5, rel=1e-6)
    best_constant = scores_of(u, torch.full_like(u, 2.0)[None], spatial=2)
    assert best_constant["vrmse"].item() == pytest.approx((63 / 64) ** 0.5, rel=1e-6)


def test_spread_of_two_opposite_members(scores_of):
    mean, half = torch.randn(5, 7), torch.rand(5, 7)
    expected = 3**0.5 * half.square().mean().sqrt()
    found = scores_of(mean, torch.stack([mean - half, mean + half]), spatial=2)
    torch.testing.assert_close(found["spread"], expected)
    torch.testing.assert_close(found["skill"], torch.tensor(0.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("members", [2, 5, 16])
def test_an_exchangeable_truth_has_a_spread_equal_to_the_skill(members, scores_of):
    draws = torch.randn(members + 1, 400, 400, generator=torch.Generator().manual_seed(members))
    found = scores_of(draws[0], draws[1:], spatial=2)
    assert (found["spread"] / found["skill"]).item() == pytest.approx(1, abs=0.01)


def test_single_precision_is_enough():
    truth = 1 + 0.1 * torch.randn(2, 3, 32, 32)
    members = truth + 0.01 * torch.randn(8, 2, 3, 32, 32)
    single, _ = score_ensemble({"truth": truth}, members, spatial=2)
    double, _ = score_ensemble({"truth": truth.double()}, members.double(), spatial=2)
    for name, expected in double["truth"].metrics.items():
        torch.testing.assert_close(single["truth"].metrics[name].double(), expected, rtol=1e-4, atol=1e-5)


def test_threads_change_no_score(monkeypatch):
    monkeypatch.setitem(ensemble.BLOCK_BYTES, "cpu", 2**11)
    truth, members = torch.randn(3, 4, 8, 8), torch.randn(5, 3, 4, 8, 8)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(score_ensemble({"truth": truth}, members, spatial=2))
    finally:
        torch.set_num_threads(before)
    (first, alone), (second, shared) = found
    for kind in ("metrics", "spectra"):
        one, other = getattr(first["truth"], kind), getattr(second["truth"], kind)
        for name, expected in one.items():
            assert torch.equal(other[name], expected), name
    assert torch.equal(alone.means, shared.means)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_spoils_its_own_scores_alone(value):
    truth, members = torch.randn(2, 3, 8, 8), torch.randn(5, 2, 3, 8, 8)
    whole = score_ensemble({"truth": truth}, members, spatial=2)[0]["truth"]
    members[2, 1, 0, 3, 4] = value
    scores = score_ensemble({"truth": truth}, members, spatial=2)[0]["truth"]
    good = torch.ones(2, 3, dtype=torch.bool)
    good[1, 0] = False
    for name in ("crps", "skill", "spread", "vrmse_member"):
        assert torch.equal(scores.metrics[name].isfinite(), good), name
        torch.testing.assert_close(scores.metrics[name][good], whole.metrics[name][good])
    ranks = scores.spectra["rank_histogram"]
    assert ranks[1, 0].isnan().all()
    torch.testing.assert_close(ranks[good], whole.spectra["rank_histogram"][good])


def test_a_truth_that_equals_members_shares_its_ranks():
    truth = torch.zeros(1, 1, 4, 4)
    members = torch.tensor([-1.0, 0.0, 0.0, 2.0]).reshape(4, 1, 1, 1, 1).expand(-1, 1, 1, 4, 4)
    scores = score_ensemble({"truth": truth}, members.clone(), spatial=2)[0]["truth"]
    expected = torch.tensor([0, 1 / 3, 1 / 3, 1 / 3, 0], dtype=torch.float64)
    torch.testing.assert_close(scores.spectra["rank_histogram"].flatten(), expected)
