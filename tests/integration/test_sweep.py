"""The smoke sweep: from nothing to the report, killed, and again with nothing to do.

One sweep runs undisturbed. Another is killed with SIGKILL as soon as there is a checkpoint of an emulator (in
the long test also at a simulated file and a checkpoint of an autoencoder), and started again each time; its
metrics must be the same.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from planted import SECRETS, holders
from sweeps import finish, kill_when, metrics, start

from lola.storage.inventory import unknown_files

pytestmark = pytest.mark.slow


def test_the_sweep_ends_with_models_tables_and_a_report(undisturbed):
    storage, output = undisturbed
    assert "mlflow server --workers 1 --backend-store-uri" in output
    assert "/#/experiments/1/runs?viewStateShareKey=lola-" in output
    assert "--host 127.0.0.1" in output
    for kind, count in {
        "autoencoders": 1,
        "latents": 1,
        "emulators": 3,
        "evaluations": 8,
        "reports": 1,
    }.items():
        manifests = list((storage / kind).glob("*/manifest.json"))
        assert len(manifests) == count, kind
    (page,) = storage.glob("reports/*/report.html")
    text = page.read_text()
    assert "data:image/png;base64," in text
    assert 'src="http' not in text
    models = {key[3] for key in metrics(storage)}
    references = {"persistence", "autoencoded_persistence", "climatology", "autoencoder"}
    assert models == references | {"diffusion", "neural_solver"}
    assert unknown_files(storage) == [], "files are left behind that no manifest knows"


def test_mlflow_shows_a_parent_with_a_child_per_stage(undisturbed):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{undisturbed[0]}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("lola/euler")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    (parent,) = [run for run in runs if run.data.tags["lola.stage"] == "sweep"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1 == 13
    assert {run.info.status for run in runs} == {"FINISHED"}
    scored = [
        run
        for run in children
        if run.data.params["model"] == "diffusion" and "solver_steps" in run.data.params
    ]
    assert {run.data.params["solver_steps"] for run in scored} == {"2", "4"}
    assert all("test/vrmse/1-20" in run.data.metrics for run in scored)
    assert client.get_registered_model("euler-autoencoder-f8c16").latest_versions


def test_no_secret_of_the_environment_is_printed_or_recorded(undisturbed):
    storage, output = undisturbed
    assert not any(secret in output for secret in SECRETS.values())
    assert holders(storage, SECRETS.values()) == []


def test_a_second_call_reuses_everything(undisturbed):
    storage, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in storage.rglob("manifest.json")}
    process = start(storage)
    output = finish(process, 60)
    assert process.returncode == 0, output[-4000:]
    assert "Ray" not in output
    assert before == {path: path.stat().st_mtime_ns for path in storage.rglob("manifest.json")}


@pytest.mark.long
def test_a_sweep_killed_while_emulators_train_ends_with_the_same_numbers(undisturbed, tmp_path):
    """What comes before the emulators is taken from the undisturbed sweep."""
    for kind in ("well-smoke", "autoencoders", "latents"):
        shutil.copytree(undisturbed[0] / kind, tmp_path / kind)
    check_killed(
        undisturbed[0], tmp_path, lambda: any(tmp_path.glob("emulators/*/checkpoints/step-00000005"))
    )


@pytest.mark.long
def test_a_sweep_killed_in_three_parts_ends_with_the_same_numbers(undisturbed, tmp_path):
    check_killed(
        undisturbed[0],
        tmp_path,
        lambda: any((tmp_path / "well-smoke").rglob("*.hdf5")),
        lambda: any(tmp_path.glob("autoencoders/*/checkpoints/step-00000010")),
        lambda: any(tmp_path.glob("emulators/*/checkpoints/step-00000005")),
    )


def check_killed(undisturbed: Path, storage: Path, *moments: Callable[[], bool]) -> None:
    """Kill a sweep at each of the moments and compare its metrics with those of an undisturbed one."""
    for moment in moments:
        kill_when(start(storage), moment)
    process = start(storage)
    output = finish(process)
    assert process.returncode == 0, output[-4000:]
    expected, found = metrics(undisturbed), metrics(storage)
    assert expected.keys() == found.keys()
    assert all(found[key] == pytest.approx(value, rel=1e-5, nan_ok=True) for key, value in expected.items())
    half_written = [path for path in storage.rglob(".*") if path.name.count(".") > 2 and path.is_file()]
    assert not half_written
