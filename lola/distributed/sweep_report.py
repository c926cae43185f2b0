"""The report of a sweep, made of its finished evaluations."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from lola.config import fingerprint
from lola.data.files import open_once
from lola.distributed.evaluate import read_array, read_table
from lola.distributed.plan import Plan
from lola.distributed.report import commit_report, page_path, report_stage
from lola.distributed.sweep import Trial
from lola.evaluation.evaluate import EvaluationConfig, choose_trajectories
from lola.evaluation.figures import Example
from lola.evaluation.film import Film, Row
from lola.evaluation.frames import simulation_sections
from lola.evaluation.report import Report, demo_limits, make_page
from lola.evaluation.score import Subject
from lola.evaluation.speed import Timing
from lola.remote import AnyPath
from lola.storage import Stage

SHOWN = 6  # lead times that the example states are pictured at


def report_sweep(plan: Plan) -> AnyPath:
    """Write the report of a sweep whose trials are all finished, unless it is there; returns the page."""
    evaluations = {trial.name: trial.steps[0].stage.fingerprint for trial in plan.evaluations}
    inputs = {"evaluations": fingerprint(evaluations)}
    stage = report_stage(plan.root, plan.system.name, "sweep", inputs)
    if not stage.finished:
        folders = [trial.steps[0].stage.folder for trial in plan.evaluations]
        tables = {
            name: pa.concat_tables([read_table(folder / f"{name}.parquet") for folder in folders])
            for name in ("metrics", "spectra")
        }
        config = plan.config
        report = Report(
            title="What compression costs",
            system=plan.system,
            settings=_settings(plan),
            metrics=tables["metrics"],
            spectra=tables["spectra"],
            film=_film(plan),
            examples=_examples(plan),
            timings=list(_timings(plan)),
            simulations=list(simulation_sections(plan.datasets.root)),
            limits=demo_limits(
                train_trajectories=len(plan.train.trajectories),
                test_trajectories=min(config.evaluation.trajectories, len(plan.test.trajectories)),
                grid=plan.test.grid,
                training_steps=config.emulator_training.steps,
            ),
        )
        commit_report(stage, make_page(report), tables, sweep=plan.fingerprint)
    return page_path(stage)


def _settings(plan: Plan) -> list[tuple[str, str]]:
    config, system = plan.config, plan.system
    starts = " and ".join(map(str, config.evaluation.starts))
    rates = ", ".join(f"{plan.compression(n):g}" for n in config.latent_channels)
    return [
        ("System", f"{system.name}: {', '.join(system.channels)}"),
        ("Grid", " x ".join(map(str, plan.test.grid))),
        (
            "Trajectories",
            f"{len(plan.train.trajectories)} for training, {config.evaluation.trajectories} scored",
        ),
        ("Compression rates", rates),
        ("Window", f"{config.window} states, stride {config.evaluation.stride}"),
        ("Context", f"{config.evaluation.context} state from state {starts}"),
        ("Ensemble", f"{config.evaluation.members} members"),
        ("Autoencoder training", f"{config.autoencoder_training.steps} steps"),
        ("Emulator training", f"{config.emulator_training.steps} steps"),
        ("Sweep", plan.fingerprint[:8]),
    ]


def _truth(plan: Plan) -> tuple[str, np.ndarray, list[int]]:
    """The first scored trajectory: its name, its states after the context, and their lead times."""
    config = plan.config.evaluation
    index = choose_trajectories(plan.test, config)[0]
    truth = plan.test.read(index, config.starts[0], plan.test.steps, config.stride)[:, config.context :]
    lead_times = [config.stride * (i + 1) for i in range(truth.shape[1])]
    return plan.test.trajectories[index].id, _flat(truth.numpy()), lead_times


def _examples(plan: Plan) -> list[Example]:
    """The first scored trajectory at a few lead times, as every method at each rate sees it."""
    name, truth, lead_times = _truth(plan)
    channel = plan.system.channels.index(plan.system.shown)
    shown = np.unique(np.linspace(0, len(lead_times) - 1, SHOWN).astype(int))
    times = [lead_times[i] for i in shown]
    examples = []
    for n in plan.config.latent_channels:
        rows = [Row("Truth", None, truth), *_rows(plan, n)]
        pictures = [(row.name, row.states[channel, shown]) for row in rows if row.scale == "truth"]
        title = f"{plan.system.shown}, compression {plan.compression(n):g}: {name}"
        examples.append(Example(title, pictures, times))
    return examples


def _film(plan: Plan) -> Film:
    """The same trajectory at all lead times, for every field."""
    name, truth, lead_times = _truth(plan)
    rows = [Row("Truth", None, truth)]
    if plan.config.pixel is not None:
        states = _flat(_example(plan.evaluation("neural_solver", None, plan.config.pixel))[0])
        rows.append(Row("Neural solver in pixel space", None, states))
    for n in plan.config.latent_channels:
        rows += _rows(plan, n)
    return Film(name, plan.system.channels, lead_times, rows, plan.system.shown)


def _rows(plan: Plan, n: int) -> Iterator[Row]:
    """What every method at a rate makes of the trajectory, diffusion with the most solver steps."""
    rate, config = plan.compression(n), plan.config
    diffusion = plan.evaluation("diffusion", n, config.diffusion, max(config.solver_steps))
    yield Row("Reconstruction", rate, _flat(_example(plan.evaluation("autoencoder", n))[0]))
    moments = diffusion.folder / "moments.npy"
    if moments.exists():  # earlier evaluations kept members alone
        mean, deviation = read_array(moments)
        yield Row("Diffusion, mean", rate, _flat(mean))
    for i, member in enumerate(_example(diffusion)):
        yield Row(f"Diffusion, member {i + 1}", rate, _flat(member))
    if moments.exists():
        yield Row("Diffusion, deviation of members", rate, _flat(deviation), scale="spread")
    yield Row(
        "Neural solver", rate, _flat(_example(plan.evaluation("neural_solver", n, config.neural_solver))[0])
    )


def _flat(states: np.ndarray) -> np.ndarray:
    """States `(C, L, *grid)` in two dimensions: of three, the slice in the middle of the last axis."""
    return states if states.ndim == 4 else states[..., states.shape[-1] // 2]


def _example(stage: Stage) -> np.ndarray:
    """The members of an evaluation's first trajectory that were kept, shape `(M, C, L, *grid)`."""
    return read_array(stage.folder / "example.npy")


def _timings(plan: Plan) -> Iterator[Timing]:
    """Of the simulator, and of emulators with the sweep's own context: with others they take as long."""
    yield from _simulator(plan)
    for trial in plan.evaluations:
        config = trial.steps[0].stage.config
        assert isinstance(config, EvaluationConfig)
        if config.subject == "emulator" and config.context == plan.config.evaluation.context:
            yield _timing(trial)


def _timing(trial: Trial) -> Timing:
    stage = trial.steps[0].stage
    subject = read_table(stage.folder / "metrics.parquet").slice(0, 1).to_pylist()[0]
    key = {field.name: subject[field.name] for field in dataclasses.fields(Subject)}
    return Timing(
        model=key["model"],
        guided=bool(key["guidance"]),
        seconds=stage.manifest()["seconds_per_state"],
        space=key["space"],
        compression=key["compression"] if key["space"] == "latent" else None,
        solver_steps=key["solver_steps"],
    )


def _simulator(plan: Plan) -> list[Timing]:
    """Seconds per emulated state of the simulator, where the files tell."""
    with open_once(plan.test.trajectories[0].file) as file:
        seconds = file.attrs.get("seconds_per_trajectory")
    if seconds is None:
        return []
    states = (plan.test.steps - 1) / plan.config.evaluation.stride
    return [Timing(model="simulator", seconds=float(seconds) / states)]
