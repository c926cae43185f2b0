import json

import pytest
from benchmarks.scoring import MetricsBenchmark, metrics_table, run_metrics_benchmark

from lola.core.errors import ConfigError

CONFIG = MetricsBenchmark(members=3, fields=2, lead_times=2, cells=16, rounds=2, threads=0)


def test_a_result_is_written_as_json_and_markdown():
    result = run_metrics_benchmark(CONFIG, progress=lambda name: None)
    assert json.loads(json.dumps(result)) == result
    assert set(result["seconds"]) == {"plain loop", "one pass"}
    assert metrics_table(result).splitlines()[-1].endswith("| 1.0 |")


def test_an_ensemble_of_one_is_refused():
    with pytest.raises(ConfigError, match=r"--members must be in \[2, "):
        MetricsBenchmark(members=1)
