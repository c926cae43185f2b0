import pytest
import torch

from lola.evaluation import ensemble, metrics
from lola.evaluation.ensemble import score_ensemble


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
