"""Results of earlier runs are kept, and what would replace them is refused before anything is measured."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from benchmarks import measure

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
RESULT = {"kind": "metrics", "seconds": 1.0}


def run(monkeypatch, program, *options):
    monkeypatch.setattr(sys, "argv", [program, *options])
    runpy.run_path(str(EXPERIMENTS / program), run_name="__main__")


def test_a_benchmark_replaces_results_on_demand_alone(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(measure, "measure", lambda *_: measured.append(1) or (RESULT, "| table |"))
    options = ("metrics", "--output", str(tmp_path / "new"))
    run(monkeypatch, "benchmark.py", *options)
    (tmp_path / "new" / "metrics.json").write_text("mine")
    with pytest.raises(
        SystemExit, match=r"benchmark.py: error: .*/new/metrics.json exists; give another --out"
    ):
        run(monkeypatch, "benchmark.py", *options)
    assert (tmp_path / "new" / "metrics.json").read_text() == "mine"
    assert len(measured) == 1
    run(monkeypatch, "benchmark.py", *options, "--overwrite")
    assert json.loads((tmp_path / "new" / "metrics.json").read_text()) == RESULT


def test_disturbances_replace_no_results(tmp_path, monkeypatch):
    (tmp_path / "elastic.md").write_text("mine")
    with pytest.raises(SystemExit, match=r"elastic.py: error: .*/elastic.md exists"):
        run(monkeypatch, "elastic.py", "--output", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["elastic.md"]


@pytest.mark.parametrize("preset", ["training", "data", "reading", "emulation", "metrics", "scheduling"])
def test_every_benchmark_says_what_it_writes(preset, monkeypatch, tmp_path):
    found = {}
    monkeypatch.setattr(measure, "measure", lambda config, _: found.update(config=config) or (RESULT, ""))
    run(monkeypatch, "benchmark.py", preset, "--output", str(tmp_path))
    assert measure.result_files(found["config"]) == [f"{preset}.json", f"{preset}.md"]
    if preset == "data":
        names = measure.result_files(found["config"].replace(memory=True))
        assert names == [f"data-memory.{end}" for end in ("json", "md", "csv", "png")]
