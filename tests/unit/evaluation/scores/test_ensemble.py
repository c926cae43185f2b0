import pytest
import torch

from lola.evaluation.scores import ensemble, metrics
from lola.evaluation.scores.ensemble import score_ensemble


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("grid", [(18,), (12, 17), (6, 7, 8)])
@pytest.mark.parametrize("block", [1, 2**11, 2**20])
def test_one_pass_gives_what_the_functions_give(monkeypatch, count, grid, block):
    monkeypatch.setitem(ensemble.BLOCK, "cpu", block)
    spatial = len(grid)
    targets = {name: 3 * torch.randn(2, 5, *grid).double() for name in ("truth", "autoencoded")}
    members = torch.randn(count, 2, 5, *grid).double()
    found, own = score_ensemble(targets, members, spatial=spatial)
    assert found.keys() == targets.keys()
    for name, truth in targets.items():
        expected = {
            "vrmse": metrics.vrmse(truth, members.mean(0), spatial=spatial),
            "vrmse_member": metrics.vrmse(truth, members, spatial=spatial).mean(0),
            "nrmse": metrics.nrmse(truth, members.mean(0), spatial=spatial),
            "skill": metrics.skill(truth, members, spatial=spatial),
            "crps": metrics.crps(truth, members, spatial=spatial),
        }
        errors = metrics.spectrum_rmse(truth, members, spatial=spatial)
        expected |= {f"spectrum_rmse_{band}": e for band, e in errors.items() if not e.isnan().any()}
        power, edges = metrics.power_spectrum(truth, spatial=spatial)
        spectra = {
            "power_truth": power,
            "power_prediction": metrics.power_spectrum(members, spatial=spatial)[0].mean(0),
            "coherence": metrics.coherence(truth, members, spatial=spatial)[0],
        }
        if count > 1:
            expected["spread"] = metrics.spread(members, spatial=spatial)
            spectra["rank_histogram"] = metrics.rank_histogram(truth, members, spatial=spatial)
        torch.testing.assert_close(found[name].metrics, expected)
        torch.testing.assert_close(found[name].spectra, spectra)
        torch.testing.assert_close(found[name].edges, edges)
    torch.testing.assert_close(own.means, members.flatten(3).mean(-1))
    torch.testing.assert_close(own.largest, members.flatten(3).amax(-1))
    torch.testing.assert_close(own.smallest, members.flatten(3).amin(-1))


def test_single_precision_is_enough():
    truth = 1 + 0.1 * torch.randn(2, 3, 32, 32)
    members = truth + 0.01 * torch.randn(8, 2, 3, 32, 32)
    single, _ = score_ensemble({"truth": truth}, members, spatial=2)
    double, _ = score_ensemble({"truth": truth.double()}, members.double(), spatial=2)
    for name, expected in double["truth"].metrics.items():
        torch.testing.assert_close(single["truth"].metrics[name].double(), expected, rtol=1e-4, atol=1e-5)


def test_threads_change_no_score(monkeypatch):
    monkeypatch.setitem(ensemble.BLOCK, "cpu", 2**11)
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
