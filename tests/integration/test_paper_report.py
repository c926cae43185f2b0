"""The report of a sweep of the paper's size, with made-up values, is written in bounded memory and time."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "support" / "paper_size.py"
EVALUATIONS = {"euler": 29, "rayleigh_benard": 29, "turbulence_gravity_cooling": 26}
NUMBERS = {"euler": 350e6, "rayleigh_benard": 200e6, "turbulence_gravity_cooling": 200e6}


@pytest.mark.long
@pytest.mark.parametrize("system", EVALUATIONS)
def test_a_report_of_the_papers_size(system, tmp_path):
    made, written = (
        json.loads(subprocess.check_output([sys.executable, str(PROGRAM), what, str(tmp_path), system]))
        for what in ("make", "report")
    )
    print(made, written)
    assert made["evaluations"] == EVALUATIONS[system]
    assert made["numbers"] > NUMBERS[system]
    assert written["peak_bytes"] < 2e9
    assert written["cpu_seconds"] < 180  # the time on a machine that does nothing else
    shutil.rmtree(tmp_path)  # gigabytes
