"""The report of a sweep, made of its finished evaluations."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lola.config import Config, fingerprint
from lola.distributed.plan import Plan
from lola.distributed.sweep import Trial
from lola.evaluation.evaluate import EvaluationConfig, choose_trajectories
from lola.evaluation.figures import Example
from lola.evaluation.frames import simulation_sections
from lola.evaluation.report import Report, Timing, demo_limits, write_report
from lola.evaluation.score import Subject
from lola.evaluation.tables import NAMES
from lola.storage import Stage

SHOWN = 6  # lead times that the example states are pictured at


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig(Config):
    """What a report is: the version of its looks."""

    version: int = 1


def report_stage(plan: Plan) -> Stage:
    """The stage of a plan's report."""
    inputs = {trial.name: trial.steps[0].stage.fingerprint for trial in plan.evaluations}
    return Stage(
        root=plan.root,
        kind="reports",
        system=plan.system.name,
        what="sweep",
        config=ReportConfig(),
        inputs={"evaluations": fingerprint(inputs)},
    )


def make_report(plan: Plan) -> Path:
    """Write the report of a plan whose trials are all finished, unless it is there; returns the page."""
    stage = report_stage(plan)
    page = stage.folder / "report.html"
    if not stage.finished:
        folders = [trial.steps[0].stage.folder for trial in plan.evaluations]
        tables = {
            name: pa.concat_tables([pq.read_table(folder / f"{name}.parquet") for folder in folders])
            for name in ("metrics", "spectra")
        }
        config = plan.config
        report = Report(
            title="What compression costs",
            system=plan.system,
            settings=_settings(plan),
            metrics=tables["metrics"],
            spectra=tables["spectra"],
            examples=_examples(plan),
            timings=[*_simulator(plan), *(_timing(trial) for trial in plan.evaluations if _emulates(trial))],
            simulations=list(simulation_sections(plan.datasets.root)),
            limits=demo_limits(
                train_trajectories=len(plan.train.trajectories),
                test_trajectories=min(config.evaluation.trajectories, len(plan.test.trajectories)),
                grid=plan.test.grid,
                training_steps=config.emulator_training.steps,
            ),
        )
        write_report(stage.folder, report)
        for name, table in tables.items():
            pq.write_table(table, stage.folder / f"{name}.parquet", compression="zstd")
        stage.commit(sweep=plan.fingerprint)
    return page


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


def _examples(plan: Plan) -> list[Example]:
    """The first scored trajectory at a few lead times, as every method at each rate sees it."""
    config = plan.config.evaluation
    index = choose_trajectories(plan.test, config)[0]
    channel = plan.system.channels.index(plan.system.shown)
    truth = plan.test.read(index, config.starts[0], plan.test.steps, config.stride)[channel, config.context :]
    shown = np.unique(np.linspace(0, len(truth) - 1, SHOWN).astype(int))
    lead_times = [config.stride * (int(i) + 1) for i in shown]
    examples = []
    for n in plan.config.latent_channels:
        steps = max(plan.config.solver_steps)
        reconstruction = _example(plan.evaluation("autoencoder", n))
        members = _example(plan.evaluation("diffusion", n, plan.config.diffusion, steps))
        solver = _example(plan.evaluation("neural_solver", n, plan.config.neural_solver))
        rows = [("Truth", truth.numpy()), ("Reconstruction", reconstruction[0, channel])]
        rows += [(f"Diffusion, member {i + 1}", member[channel]) for i, member in enumerate(members)]
        rows.append(("Neural solver", solver[0, channel]))
        title = (
            f"{plan.system.shown}, compression {plan.compression(n):g}: {plan.test.trajectories[index].id}"
        )
        examples.append(Example(title, [(name, states[shown]) for name, states in rows], lead_times))
    return examples


def _example(stage: Stage) -> np.ndarray:
    return np.load(stage.folder / "example.npy")


def _emulates(trial: Trial) -> bool:
    config = trial.steps[0].stage.config
    return isinstance(config, EvaluationConfig) and config.subject == "emulator"


def _timing(trial: Trial) -> Timing:
    stage = trial.steps[0].stage
    subject = pq.read_table(stage.folder / "metrics.parquet").slice(0, 1).to_pylist()[0]
    key = {field.name: subject[field.name] for field in dataclasses.fields(Subject)}
    return Timing(
        method=f"{NAMES[key['model']]}, {key['space']}" + (", guided" if key["guidance"] else ""),
        seconds=stage.manifest()["seconds_per_state"],
        compression=key["compression"] if key["space"] == "latent" else None,
        solver_steps=key["solver_steps"],
    )


def _simulator(plan: Plan) -> list[Timing]:
    """Seconds per emulated state of the simulator, where the files tell."""
    with h5py.File(plan.test.trajectories[0].file) as file:
        seconds = file.attrs.get("seconds_per_trajectory")
    if seconds is None:
        return []
    states = (plan.test.steps - 1) / plan.config.evaluation.stride
    return [Timing(method="Simulator", seconds=float(seconds) / states, simulator=True)]
