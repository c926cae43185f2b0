"""Results that are kept: the folder is asked for first, and no command says where things are."""

import pandas as pd
import pytest

from lola.core.errors import ConfigError, StorageError
from lola.evaluation.tables.lead_times import layout
from lola.workflows import run
from lola.workflows.kept_results import describe_command, describe_rates, open_results


def test_commands_are_shown_without_places():
    given = ["/home/me/lola/experiments/sweep_compression.py", "study", "--storage", "/home/me/storage"]
    given += ["--results=kept", "--seeds", "0", "1", "--well", "s3://bucket/well", "--system", "my data"]
    shown = "python experiments/sweep_compression.py study --seeds 0 1 --system 'my data'"
    assert describe_command(given) == shown
    assert describe_command(["/usr/lib/ipykernel_launcher", "-f", "x.json"]) == "lola.run_sweep(...)"


def test_a_folder_that_cannot_be_written_is_refused_first(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_prepare", lambda *_: pytest.fail("the sweep began"))
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(StorageError, match=r"results: .*kept"):
        run.run_sweep(sweep.replace(results=str(tmp_path / "kept")))
    with pytest.raises(StorageError, match="results"):
        run.run_sweep(sweep.replace(results="s3:/bucket/kept"))
    with pytest.raises(ConfigError, match="--results are those of a whole sweep"):
        run.run_stages(sweep.replace(results=str(tmp_path / "new")), "title", lambda plan: ())
    assert not (tmp_path / "new").exists()


def test_files_that_no_sweep_wrote_are_never_replaced(sweep, tmp_path, monkeypatch):
    """Such as those of a clone in the current folder."""
    monkeypatch.setattr(run, "_prepare", lambda *_: pytest.fail("the sweep began"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "states.png").write_bytes(b"mine")
    for about in (None, "{}", "not JSON", '["system"]'):
        if about is not None:
            (tmp_path / "about.json").write_text(about)
        with pytest.raises(
            ConfigError, match=r"--results \. would replace README.md, .*which no sweep wrote"
        ):
            run.run_sweep(sweep.replace(results="."))
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "about.json").write_text('{"system": 1, "command": 1, "settings": [], "timings": []}')
    assert open_results(".").samefile(tmp_path)


def test_titles_say_what_was_compared():
    assert describe_rates([5.0, 80.0]) == "what compression costs"
    assert describe_rates([20.0]) == "emulators at 20 times compression"
    assert describe_rates([]) == "emulators in pixel space"


def test_the_best_coverage_is_that_of_a_calibrated_ensemble():
    """Of 8 members the 90 % interval can cover 7 / 9."""
    method = {"space": "latent", "compression": 16.0, "sampler": "", "solver_steps": 0, "members": 8}
    method |= {"context": 1, "overlap": 1, "guidance": "", "low": 0.5, "high": 0.9, "seeds": 1}
    rows = [
        {"model": model, "metric": metric, "range": "1-20", "value": value} | method
        for model, value in (("diffusion", 0.5), ("crps_ensemble", 0.77), ("shortcut", 0.95))
        for metric in ("coverage_90", "coverage_50")
    ]
    shown = layout(pd.DataFrame(rows).assign(trajectories=64, unstable=0))
    best = {name: [cell.best for cell in cells] for name, *_, cells in shown.rows}
    assert best == {
        "Diffusion": [False, True],
        "CRPS ensemble": [True, False],
        "Few-step diffusion": [False, False],
    }
