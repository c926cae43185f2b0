"""Trainings that are given minutes: their steps, records and plans, with throughputs that tests choose."""

import json
import re

import pytest

from lola.core.cli import parse
from lola.core.errors import ConfigError, DataError, LolaError
from lola.storage.inventory import unknown_files
from lola.training.hardware import Hardware
from lola.training.throughput import Throughput
from lola.workflows import presets, sweep_report, wall_clock
from lola.workflows.arms import EmulatorArmConfig
from lola.workflows.forecast import estimates
from lola.workflows.forecast.show import show_sweep
from lola.workflows.plan import SweepPlan
from lola.workflows.wall_clock import FOLDER, WallClock, describe_steps, with_steps

SECONDS = {"AutoencoderConfig": 0.5, "NeuralSolverConfig": 0.25, "DiffusionConfig": 0.2}


@pytest.fixture
def config():
    smoke = presets.smoke()
    minutes = smoke.emulator_training.replace(minutes=2.0, report_every=10**6)
    pixel = smoke.pixel.replace(network=smoke.pixel.network.replace(patch_size=4))
    return smoke.replace(latent_channels=(16, 4), pixel=pixel, emulator_training=minutes)


@pytest.fixture
def measured(monkeypatch):
    """What was measured, and of how many at once: without processes, by kind of model."""
    calls = []

    def measure(request, *, threads, copies):
        calls.append((type(request.model).__name__, copies))
        return Throughput(step=SECONDS[calls[-1][0]])

    monkeypatch.setattr(wall_clock, "measure_throughput", measure)
    monkeypatch.setattr(wall_clock, "cores", lambda: 3)
    return calls


def plan_of(config, root, well, part=lambda plan: plan):
    return with_steps(lambda: SweepPlan(config, root, well), part, lambda timed, n: timed.measure(root, n))


def steps_of(plan):
    trained = {
        step.stage.what: step.stage.config for step in plan.steps if hasattr(step.stage.config, "training")
    }
    return {what: recipe.training.steps for what, recipe in trained.items()}


def test_each_model_has_the_steps_of_its_own_throughput(config, measured, tmp_path, well):
    plan = plan_of(config, tmp_path, well)
    assert steps_of(plan) == {
        **dict.fromkeys(("autoencoder-f8c16", "autoencoder-f8c4", "neural_solver-pixel"), 20),
        **dict.fromkeys(("neural_solver-f8c16", "neural_solver-f8c4"), 480),
        **dict.fromkeys(("diffusion-f8c16", "diffusion-f8c4"), 600),
    }
    assert sorted(measured) == [*[("DiffusionConfig", 3)] * 2, *[("NeuralSolverConfig", 3)] * 2]
    assert f"diffusion-f8c4: 2 minutes are 600 steps, as recorded in {tmp_path / FOLDER}" in [
        *describe_steps(plan)
    ]
    explicit = config.emulator_training.replace(minutes=None, steps=480)
    by_steps = SweepPlan(config.replace(emulator_training=explicit), tmp_path, well)
    found, expected = (each.emulator(each.planned("neural_solver", 4)) for each in (plan, by_steps))
    assert found.fingerprint == expected.fingerprint
    assert plan.fingerprint != by_steps.fingerprint


def test_arms_have_minutes_of_their_own_and_seeds_share_a_record(config, measured, tmp_path, well):
    training = config.emulator_training.replace(minutes=1.0)
    model = config.neural_solver.replace(warm_start="neural_solver")
    arms = (EmulatorArmConfig(name="short", model=model, training=training),)
    plan = plan_of(config.replace(arms=arms, seeds=(0, 1), latent_channels=(4,)), tmp_path, well)
    steps = steps_of(plan)
    assert {what: steps[what] for what in steps if "short" in what} == {
        "short-f8c4": 240,
        "short-f8c4-seed1": 240,
    }
    assert steps["neural_solver-f8c4-seed1"] == 480
    assert sorted(measured) == [("DiffusionConfig", 3), ("NeuralSolverConfig", 3)]
    settings = dict(sweep_report._compared(plan))
    assert "1 minutes: 240 steps" in next(iter(settings.values()))


def test_a_record_counts_from_then_on(config, measured, tmp_path, well, monkeypatch):
    first = plan_of(config, tmp_path, well)
    monkeypatch.setitem(SECONDS, "DiffusionConfig", 0.1)
    calls = measured[:]
    again = plan_of(config, tmp_path, well)
    assert measured == calls
    assert again.fingerprint == first.fingerprint
    assert SweepPlan(config, tmp_path, well).fingerprint == first.fingerprint
    other = config.emulator_training.replace(
        minutes=4.0, seed=3, optimizer=config.emulator_training.optimizer.replace(learning_rate=1.0)
    )
    longer = plan_of(config.replace(emulator_training=other), tmp_path, well)
    assert steps_of(longer)["diffusion-f8c4"] == 1200
    assert measured == calls
    larger = config.emulator_training.replace(batch_size=8)
    plan_of(config.replace(emulator_training=larger), tmp_path, well)
    assert len(measured) == 2 * len(calls)
    assert not unknown_files(tmp_path)
    (tmp_path / FOLDER / "note.txt").touch()
    assert unknown_files(tmp_path) == [tmp_path / FOLDER / "note.txt"]
    records = [json.loads(path.read_text()) for path in (tmp_path / FOLDER).glob("Diffusion*.json")]
    assert {record["training"]["batch_size"] for record in records} == {4, 8}
    assert all(record["copies"] == 3 and "cores" in record["hardware"] for record in records)


@pytest.mark.parametrize(("gpus", "copies"), [(1.0, 1), (0.25, 4), (0.6, 1)])
def test_trainings_that_share_a_gpu_are_timed_together(
    config, measured, tmp_path, well, monkeypatch, gpus, copies
):
    """As many as there are, at most as many as fit; a share has a record of its own."""
    monkeypatch.setattr(wall_clock, "_gpus", lambda: ("a GPU",))
    whole = config.replace(emulator_training=config.emulator_training.replace(gpus=1.0, cpus=1))
    plan_of(whole, tmp_path, well)
    before = len(measured)
    shared = config.replace(emulator_training=whole.emulator_training.replace(gpus=gpus))
    plan_of(shared, tmp_path, well)
    assert {n for _, n in measured[:before]} == {1}
    assert len(measured) == (before if gpus == 1 else 2 * before)
    assert {n for _, n in measured[before:]} <= {copies}


def test_only_what_is_wanted_is_timed(config, measured, tmp_path, well):
    def part(plan):
        return plan.towards(plan.emulator(plan.planned("diffusion", 4)))

    plan = plan_of(config, tmp_path, well, part)
    assert measured == [("DiffusionConfig", 1)]
    assert steps_of(plan) == {"autoencoder-f8c4": 20, "diffusion-f8c4": 600}
    with pytest.raises(
        ConfigError, match=r"--emulator-training.minutes: no throughput is recorded in .*json"
    ):
        SweepPlan(config, tmp_path, well).trials  # noqa: B018


def test_a_plan_estimates_what_is_not_recorded_and_writes_nothing(
    config, measured, tmp_path, well, capsys, monkeypatch
):
    monkeypatch.setattr(estimates, "processor", lambda cores: Hardware(float32=5e10 * cores))
    shown = config.replace(storage=str(tmp_path / "root"), well=str(well))
    show_sweep(shown)
    text = " ".join(capsys.readouterr().out.split())
    assert "2 minutes are " in text
    assert "by the peak; a run measures, and records, its own number" in text
    assert not measured
    assert list((tmp_path / "root").iterdir()) == []
    plan_of(shown, tmp_path / "root", well)
    show_sweep(shown)
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"2 minutes are 600 steps, as recorded: [^.]*diffusion-f8c4", text)
    assert "diffusion-f8c4 minutes 1 1 0 0.035" in text  # 2 minutes and the start of a training
    assert "by the peak" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 0.001}, "--emulator-training.minutes 0.001 fit 0 steps of .* give more"),
        (
            {"minutes": 1.0, "warmup": 400},
            "--emulator-training.minutes 1 fit 2.0 steps of .*, fewer than the 400 of --emulator-training.w",
        ),
        (
            {"workers": 4},
            "4 workers are timed on this machine, which has 3 workers' CPUs; .*--emulator-training.steps",
        ),
        ({"gpus": 1.0}, "1 workers are timed on this machine, which has 0 GPUs"),
    ],
)
def test_minutes_that_do_not_fit_are_refused(config, measured, tmp_path, well, monkeypatch, changes, message):
    monkeypatch.setattr(wall_clock, "_gpus", tuple)
    training = config.emulator_training.replace(**changes)
    with pytest.raises(ConfigError, match=message):
        plan_of(config.replace(emulator_training=training), tmp_path, well)


def test_what_fails_leaves_no_record(config, measured, tmp_path, well, monkeypatch):
    def fail(request, **options):
        raise LolaError("timing its steps ended with code 1: out of memory")

    monkeypatch.setattr(wall_clock, "measure_throughput", fail)
    with pytest.raises(
        LolaError, match=r"--emulator-training.minutes: timing .* memory; give --emulator-training.steps"
    ):
        plan_of(config, tmp_path, well)
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("content", ["", "{}", '{"seconds": {"step": 0.0}}', '{"seconds": {"steps": 1}}'])
def test_a_corrupt_record_is_named(config, measured, tmp_path, well, content):
    plan_of(config, tmp_path, well)
    for path in (tmp_path / FOLDER).iterdir():
        path.write_text(content)
    with pytest.raises(DataError, match=r"throughput/.*json is no record .*; delete it and run again"):
        plan_of(config, tmp_path, well)


def test_minutes_on_the_command_line_take_the_place_of_a_preset_s_steps():
    config = parse(["--emulator-training.minutes", "0.5"], "sweep", "", presets.SWEEPS, "mini")
    assert config.emulator_training.minutes == 0.5
    assert config.to_json() == presets.mini().to_json()
    study = presets.study_smoke()
    timed = study.training.replace(minutes=1.0)
    with pytest.raises(ConfigError, match=r"--training.minutes: .* give --training.steps"):
        study.replace(training=timed)


def test_a_clock_without_minutes_changes_nothing(tmp_path):
    training = presets.mini().emulator_training
    assert WallClock(tmp_path).resolve("emulator_training", training, None) is training
