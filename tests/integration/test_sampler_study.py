"""The study of samplers as a process of its own, on the smallest models: killed, gone on with, and done."""

import os
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from stages import finish_diffusion
from sweeps import finish, launch
from waves import write_dataset

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.long]


def start(storage, ray_folder):
    program = [sys.executable, str(ROOT / "experiments" / "study_samplers.py")]
    return launch([*program, "smoke", "--well", "well"], storage, RAY_TMPDIR=str(ray_folder))


def test_a_study_goes_on_where_it_was_killed(tmp_path, ray_folder):
    write_dataset(tmp_path / "well")
    names = [finish_diffusion(tmp_path, tmp_path / "well", channels=n).name for n in (16, 4)]
    process = start(tmp_path, ray_folder)
    until = time.monotonic() + 400
    while not list((tmp_path / "evaluations").glob("*/manifest.json")) and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "evaluations").glob("*/manifest.json")}
    assert done, output[-4000:]
    again = start(tmp_path, ray_folder)
    output = finish(again)
    assert again.returncode == 0, output[-4000:]
    assert {path: path.stat().st_mtime_ns for path in done} == done
    (page,) = (tmp_path / "reports").glob("euler-samplers-*/report.html")
    assert f"report: {page}" in output
    assert (page.parent / "choices.md").read_text().count("\n") > 4
    scores = pd.read_parquet(page.parent / "scores.parquet")
    assert set(scores["emulator"]) == set(names)
    assert set(scores["split"]) == {"valid", "test"}
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("lola/euler").experiment_id])
    (parent,) = (run for run in runs if run.data.tags["lola.stage"] == "sweep")
    assert parent.info.status == "FINISHED"
    assert {"report/choices.csv", "report/candidates.png", "report/ratios.parquet"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id, "report")
    }
    evaluations = [run for run in runs if run.data.tags["lola.stage"] == "evaluation"]
    assert len(evaluations) == len(list((tmp_path / "evaluations").glob("*/manifest.json")))
    assert {run.data.tags["lola.split"] for run in evaluations} == {"valid", "test"}
    assert {run.data.tags["lola.solver_steps"] for run in evaluations} == {"2", "4", "8"}
