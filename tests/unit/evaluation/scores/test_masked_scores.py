"""Scores over the cells of a domain, against sums that are written out."""

import numpy as np
import pytest
import torch

from lola.evaluation.scores.ensemble import score_ensemble

VALID = torch.ones(6, 8, dtype=torch.bool)
VALID[1:3, 2:5] = False


def ensemble(members=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 6, 8, generator=generator), torch.randn(members, 2, 4, 6, 8, generator=generator)


def scored(u, v, valid=VALID):
    scores, statistics = score_ensemble({"truth": u}, v, spatial=2, valid=valid)
    return scores["truth"], statistics


def test_scores_are_of_valid_cells():
    u, v = ensemble()
    scores, statistics = scored(u, v)
    a, b = (each.double().numpy()[..., VALID.numpy()] for each in (u, v))
    mean = b.mean(0)
    error = ((a - mean) ** 2).mean(-1)
    expected = {
        "vrmse": np.sqrt(error / (a.var(-1, ddof=1) + 1e-6)),
        "nrmse": np.sqrt(error / ((a**2).mean(-1) + 1e-6)),
        "skill": np.sqrt(error),
        "spread": np.sqrt(4 / 2 * ((b - mean) ** 2).mean((0, -1))),
        "crps": (np.abs(b - a).mean(0) - np.abs(b[:, None] - b[None]).sum((0, 1)) / (2 * 3 * 2)).mean(-1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(scores.metrics[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(statistics.means, b.mean(-1), atol=1e-6)
    np.testing.assert_allclose(statistics.largest, b.max(-1), rtol=1e-6)


def test_spectra_are_of_fields_filled_with_their_means():
    u, v = ensemble()
    filled = [torch.where(VALID, each, each[..., VALID].mean(-1)[..., None, None]) for each in (u, v)]
    scores, whole = scored(u, v)[0], scored(*filled, None)[0]
    for name in ("power_truth", "power_prediction", "coherence"):
        torch.testing.assert_close(scores.spectra[name], whole.spectra[name])
    ranks = scores.spectra["rank_histogram"]
    assert ranks.sum(-1).numpy() == pytest.approx(whole.spectra["rank_histogram"].sum(-1).numpy())


@pytest.mark.parametrize("members", [1, 3])
def test_what_is_outside_changes_nothing(members):
    u, v = ensemble(members)
    others = [torch.where(VALID, each, value) for each, value in ((u, torch.nan), (v, 1e30))]
    (one, own), (two, other) = scored(u, v), scored(*others)
    for found, again in ((one.metrics, two.metrics), (one.spectra, two.spectra), (vars(own), vars(other))):
        assert all(torch.equal(found[name], again[name]) for name in found)
        assert all(torch.isfinite(value).all() for value in found.values())


def test_a_domain_of_all_cells_has_the_same_scores():
    u, v = ensemble()
    everywhere, plain = scored(u, v, torch.ones_like(VALID))[0], scored(u, v, None)[0]
    for name, value in plain.metrics.items():
        torch.testing.assert_close(everywhere.metrics[name], value)
