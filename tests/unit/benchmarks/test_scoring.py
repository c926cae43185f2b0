import json

import numpy as np
import pytest
import torch
from benchmarks.plain_scoring import plain_scores
from benchmarks.scoring import MetricsBenchmark, draw, looped_scores, metrics_table, run_metrics_benchmark

from lola.core.errors import ConfigError
from lola.evaluation.scores.ensemble import score_ensemble

CONFIG = MetricsBenchmark(members=3, fields=2, lead_times=2, cells=16, rounds=2, threads=0)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_variants_compute_the_same(dimensions):
    config = CONFIG.replace(dimensions=dimensions, cells=10)
    truth, members = (x.double() for x in draw(config))
    scores, _ = score_ensemble({"truth": truth}, members, spatial=dimensions)
    found = scores["truth"].metrics | scores["truth"].spectra
    plain = plain_scores(truth.numpy(), members.numpy())
    assert plain.keys() == found.keys()
    for name, expected in plain.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)
    looped = looped_scores(truth, members)
    for name in {*found} & {*looped[0]}:
        torch.testing.assert_close(torch.stack([each[name] for each in looped]), found[name].flatten(0, 1))


def test_a_result_is_told_in_json_and_markdown():
    result = run_metrics_benchmark(CONFIG, progress=lambda name: None)
    assert json.loads(json.dumps(result)) == result
    assert set(result["seconds"]) == {"plain loop", "functions", "one pass"}
    assert metrics_table(result).splitlines()[-1].endswith("| 1.0 |")


def test_an_ensemble_of_one_is_refused():
    with pytest.raises(ConfigError, match=r"--members must be in \[2, "):
        MetricsBenchmark(members=1)
