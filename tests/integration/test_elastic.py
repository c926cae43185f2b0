"""Training goes on when a node is taken away, from the checkpoint that its notice asked for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "experiments" / "elastic.py"
pytestmark = pytest.mark.slow


@pytest.mark.long
def test_a_run_that_loses_a_node_after_a_notice_follows_the_curve_of_one_that_does_not(tmp_path):
    options = ["--scenarios", "node preempted", "--steps", "180", "--report-every", "60", "--notice", "10"]
    command = [sys.executable, str(PROGRAM), *options, "--output", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    (row,) = json.loads((tmp_path / "elastic.json").read_text())
    assert row["workers"] == [2, 1]
    assert row["curve"] < 1e-4
    assert row["weights"] < 1e-3
    # Its last regular checkpoint was that of step 60; the node went more than ten seconds later.
    assert row["steps lost"] < 60
