"""The reliability index against closed forms."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from lola.evaluation.scores.rows import SPECTRA_SCHEMA
from lola.evaluation.tables.reliability import reliability_index, reliability_table

MEMBERS = 4


def rows(shares, lead_times=(4, 24), model="diffusion", metric="rank_histogram", target="truth", seed=0):
    """Rows of histograms with shape `(T, F, L, M + 1)`."""
    keys = {"system": "euler", "dataset": "d", "fingerprint": "f", "model": model, "space": "latent",
            "compression": 16.0, "training_seed": seed, "sampler": "", "solver_steps": 8, "members": MEMBERS,
            "context": 1, "overlap": 1, "guidance": "", "target": target, "start": 0, "metric": metric,
            "coordinate": 0.0, "step": 1.0}  # fmt: skip
    return pa.Table.from_pylist(
        [
            keys | {"trajectory": str(t), "field": str(f), "lead_time": time, "values": list(shares[t, f, i])}
            for t in range(shares.shape[0])
            for f in range(shares.shape[1])
            for i, time in enumerate(lead_times)
        ],
        schema=SPECTRA_SCHEMA,
    )


def test_equal_shares_have_none_and_one_rank_for_all_the_most():
    uniform = np.full((3, 2, 2, MEMBERS + 1), 1 / (MEMBERS + 1))
    peak = np.zeros_like(uniform)
    peak[..., 0] = 1
    table = reliability_table(pa.concat_tables([rows(uniform), rows(peak, model="climatology")]), [(1, None)])
    found = table.set_index("model")
    assert found.loc["diffusion", ["value", "by_chance"]].tolist() == pytest.approx([0, 0], abs=1e-7)
    assert found.loc["climatology", "value"] == pytest.approx(2 * MEMBERS / (MEMBERS + 1))
    assert found.loc["climatology", "by_chance"] == pytest.approx(0, abs=1e-7)


def test_uniform_ranks_have_what_a_multinomial_gives():
    """The mean of the index over many samples, and of its estimate, are the exact expectation."""
    points, count, ranks = 3, 32, MEMBERS + 1
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(points, np.full(ranks, 1 / ranks), size=(count, 4000)) / points
    index, by_chance = reliability_index(drawn)
    n, p = points * count, 1 / ranks
    exact = ranks * np.abs(np.arange(n + 1) / n - p) @ binom.pmf(np.arange(n + 1), n, p)
    assert index.mean() == pytest.approx(exact, rel=0.01)
    assert by_chance.mean() == pytest.approx(exact, rel=0.02)
    assert by_chance.mean() == pytest.approx(np.sqrt(2 * MEMBERS / (np.pi * n)), rel=0.02)


def test_points_that_are_alike_count_once():
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(1, np.full(MEMBERS + 1, 0.2), size=(16, 1000)).astype(float)
    _, alike = reliability_index(drawn)  # all points of a trajectory have one rank, however many they are
    assert alike.mean() == pytest.approx(np.sqrt(2 * MEMBERS / (np.pi * 16)), rel=0.05)


def test_ranges_fields_seeds_and_targets():
    shares = np.zeros((2, 2, 2, MEMBERS + 1))
    shares[:, 0, :, 0] = 1  # of the second field ranks are equally frequent
    shares[:, 1] = 0.2
    shares[:, 0, 1] = 0.2  # and of the first at the second lead time
    parts = [rows(shares), rows(0 * shares + 0.2, seed=1), rows(shares, target="autoencoded"),
             rows(shares, metric="coherence")]  # fmt: skip
    table = reliability_table(pa.concat_tables(parts), [(1, 20), (21, None), (100, None)]).set_index("range")
    # Half of the seeds, of the fields: (1 + 0.2) / 2 - 0.2 once and 0.1 - 0.2 four times
    assert table["value"].to_dict() == pytest.approx({"1-20": (0.4 + 4 * 0.1) / 2, "21-end": 0}, abs=1e-7)
    assert set(table["seeds"]) == {2}


def test_a_lost_trajectory_leaves_no_index():
    shares = np.full((2, 1, 2, MEMBERS + 1), 0.2)
    shares[1] = np.nan
    table = reliability_table(rows(shares), [(1, 20)])
    assert table["value"].isna().all()
    assert np.isnan(reliability_index(shares[:1])[1]).all()
