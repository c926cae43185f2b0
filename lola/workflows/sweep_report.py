"""The report of a sweep, made of its finished evaluations."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from lola.core.config import fingerprint
from lola.data.domain import inside
from lola.data.hdf5 import open_hdf5
from lola.data.planes import as_plane
from lola.distributed.jobs.evaluate import EXAMPLE, MOMENTS
from lola.distributed.trials import Trial
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.page.figures import Example
from lola.evaluation.page.film_player import Film, Row, choose_frames, limits_of, select_frames, shrink
from lola.evaluation.page.frames import simulation_section
from lola.evaluation.page.page import Page, write_page
from lola.evaluation.page.sweep_page import demo_limits, make_page
from lola.evaluation.scoring import blank
from lola.evaluation.tables.aggregates import Aggregates
from lola.evaluation.tables.cells import METHOD
from lola.evaluation.tables.contexts import CONTEXTS
from lola.evaluation.tables.lead_times import in_sentence
from lola.evaluation.tables.speed import Timing
from lola.evaluation.tables.stored import read_array, read_subject, read_table
from lola.evaluation.trajectory import choose_parts
from lola.models.kinds import KINDS, EmulatorKind, require_kind, shown_with
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage
from lola.training.config import TrainingConfig
from lola.workflows.arms import PlannedEmulator
from lola.workflows.plan import SweepPlan
from lola.workflows.report_stage import TABLES, page_path, report_folder, report_stage, write_passing_tables
from lola.workflows.sweep import Recipe
from lola.workflows.training_time import training_seconds

SHOWN_REMARKS = 5  # on the data; the records of the stages have more
SHOWN = 6  # lead times that the example states are pictured at
GEOMETRIES = {
    "quadrature": "weights of the grid; a cosine transform along what is not periodic",
    "published": "all cells alike, spectra as if periodic",
}
PICTURE = 256  # points along the longest side of each; finer grids are averaged over blocks


def sweep_report_stage(plan: SweepPlan) -> Stage:
    """The stage of the report of a sweep."""
    evaluations = {trial.name: trial.steps[0].stage.fingerprint for trial in plan.evaluations}
    inputs = {"evaluations": fingerprint(evaluations)} | plan.system.reporting
    if arms := [(arm.name, arm.title) for arm in shown_arms(plan)]:
        inputs["arms"] = fingerprint(arms)
    return report_stage(plan.root, plan.system.name, "sweep", inputs)


def report_sweep(plan: SweepPlan) -> AnyPath:
    """Write the report of a sweep whose trials are all finished, unless it exists; returns the page.

    Evaluations are read one after the other: memory keeps what the page shows, and rows go to files.
    """
    stage = sweep_report_stage(plan)
    if not stage.finished:
        rows: dict[str, int] = {}
        with report_folder(stage) as folder, shown_with(shown_arms(plan)):
            tables = write_passing_tables(evaluated_tables(plan), folder, rows)
            write_page(folder, _page(plan, Aggregates.of(plan.system, tables)))
        stage.commit(sweep=plan.fingerprint, rows=rows)
    return page_path(stage)


def shown_arms(plan: SweepPlan) -> list[EmulatorKind]:
    """What tables and charts show of the sweep's arms."""
    kinds = {one.name: one.kind for one in plan.emulators if one.name not in KINDS}
    return [kinds[arm.name] for arm in plan.config.arms]


def _page(plan: SweepPlan, scores: Aggregates) -> Page:
    truth = _truth(plan)
    return make_page(
        scores,
        title="What compression costs",
        settings=describe_settings(plan),
        film=_film(plan, truth),
        examples=_examples(plan, truth),
        timings=list(timings(plan)),
        simulations=[simulation_section(plan.splits["test"])] if plan.system.dimensions > 1 else [],
        contexts=further_contexts(plan),
        limits=demo_limits(
            train_trajectories=plan.data.trajectories["train"],
            test_trajectories=_scored(plan),
            grid=plan.data.grid,
            training_steps=max(training.steps for training in _trainings(map(plan.emulator, plan.emulators))),
            seeds=len(plan.config.seeds) or 1,
        ),
    )


def further_contexts(plan: SweepPlan) -> list[int]:
    """The paper's contexts that are larger than the sweep's and leave states to predict."""
    config, evaluation = plan.config, plan.config.evaluation
    after = (plan.data.longest("test") - 1 - max(evaluation.starts)) // evaluation.stride
    return [n for n in CONTEXTS if evaluation.context < n <= min(config.window - 1, after)]


def evaluated_tables(plan: SweepPlan) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Metrics and spectra, all evaluations of a method at once: these differ in the seed of a training."""
    folders: dict[tuple, list[AnyPath]] = {}
    for trial in plan.evaluations:
        folder = trial.steps[0].stage.folder
        subject = read_subject(folder / "metrics.parquet")
        folders.setdefault(tuple(subject[key] for key in METHOD), []).append(folder)
    for alike in folders.values():
        yield _read(alike)


def _read(folders: list[AnyPath]) -> tuple[pa.Table, pa.Table]:
    metrics, spectra = (
        pa.concat_tables([read_table(folder / f"{name}.parquet") for folder in folders]) for name in TABLES
    )
    return metrics, spectra


def describe_settings(plan: SweepPlan) -> list[tuple[str, str]]:
    """Names and values of what was run, for people."""
    config, system = plan.config, plan.system
    starts = " and ".join(map(str, config.evaluation.starts))
    shared = [
        plan.emulator(one) for one in plan.emulators if one.candidate.training_option == "emulator-training"
    ]
    rates = ", ".join(f"{plan.compression(n):g}" for n in config.latent_channels)
    return [
        ("System", f"{system.name}: {', '.join(system.channels)}"),
        ("Grid", " x ".join(map(str, plan.data.grid))),
        (
            "Trajectories",
            f"{plan.data.trajectories['train']} for training, {_scored(plan)} scored"
            + (f", {plan.data.excluded} excluded" if plan.data.excluded else ""),
        ),
        ("Compression rates", rates),
        ("Window", f"{config.window} states, stride {config.evaluation.stride}"),
        ("Context", f"{config.evaluation.context} state from state {starts}"),
        ("Ensemble", f"{config.evaluation.members} members"),
        ("Means over the grid, and spectra", GEOMETRIES[config.evaluation.geometry]),
        ("Autoencoder training", _length(_trainings(map(plan.autoencoder, config.latent_channels)))),
        *([("Emulator training", _length(_trainings(shared)))] if shared else []),
        *_compared(plan),
        *_remarks(plan),
        ("Skipped training steps", _skipped(plan)),
        ("Files left out of latent caches", _left_out(plan)),
        *_short(plan),
        ("Sweep", plan.fingerprint[:8]),
    ]


def _compared(plan: SweepPlan) -> Iterator[tuple[str, str]]:
    """The arms, each with its kind and training, and the training seeds."""
    for arm, kind in zip(plan.config.arms, shown_arms(plan), strict=True):
        one = next(each for each in plan.emulators if each.name == arm.name)
        start = f", starts from {one.model.warm_start}" if one.model.warm_start else ""
        length = _length(_trainings(plan.emulator(each) for each in plan.emulators if each.name == arm.name))
        own_kind = in_sentence(require_kind(one.model).title)
        yield kind.title, f"{arm.name}, a {own_kind}: {length}{start}"
    seeds = plan.config.seeds
    if len(seeds) > 1:
        where = [f"{plan.compression(n):g}" for n in plan.config.seeds_at]
        at = f"; at other rates than {' and '.join(where)} only {seeds[0]}" if where else ""
        yield "Training seeds", f"{', '.join(map(str, seeds))}{at}; pictures and times are of {seeds[0]}"


def _trainings(stages: Iterable[Stage]) -> list[TrainingConfig]:
    return [cast(Recipe, stage.config).training for stage in stages]


def _length(trainings: Sequence[TrainingConfig]) -> str:
    """The steps of trainings that one option configures, in words."""
    steps, minutes = sorted(training.steps for training in trainings), trainings[0].minutes
    if minutes is None:
        return f"{steps[0]} steps"
    return (
        f"{minutes:g} minutes: " + (f"{steps[0]} to " if steps[0] < steps[-1] else "") + f"{steps[-1]} steps"
    )


def _remarks(plan: SweepPlan) -> list[tuple[str, str]]:
    """What stood out in the data while statistics were computed, and the other splits searched."""
    stages = [each for stage in plan.first for each in (stage, stage.check)]
    found = [line for stage in stages for line in stage.manifest().get("faults", [])]
    more = (
        f"; and {len(found) - SHOWN_REMARKS} more in the records of statistics"
        if len(found) > SHOWN_REMARKS
        else ""
    )
    return [("Remarks on the data", "; ".join(found[:SHOWN_REMARKS]) + more)] if found else []


def _short(plan: SweepPlan) -> list[tuple[str, str]]:
    """How much of which splits and evaluations is left out, where trajectories have different lengths."""
    config = plan.config
    span = (config.window - 1) * config.evaluation.stride + 1
    lengths = sorted({length for split in plan.data.trajectories for length in plan.data.lengths_of(split)})
    if len(lengths) == 1:
        return []
    counts = {f"{name} split": plan.data.short(name, span) for name in ("train", "valid")}
    windows = [f"{count} of the {name}" for name, count in counts.items() if count]
    starts = []
    for stage in (trial.steps[0].stage for trial in plan.evaluations):
        short = stage.manifest().get("short", {"starts": 0})
        if short["starts"]:
            starts.append(f"{stage.what} {short['starts']} of {short['of']}")
    return [
        ("States of a trajectory", f"{lengths[0]} to {lengths[-1]}"),
        ("Trajectories shorter than a window", "; ".join(windows) or "none"),
        ("Start states that trajectories do not reach", "; ".join(starts) or "none"),
    ]


def _skipped(plan: SweepPlan) -> str:
    """How many steps of which trainings changed nothing, since their gradients were not finite."""
    stages = [(step.stage, step.stage.config) for step in plan.steps]
    return _list_counts(
        (stage.what, stage.manifest().get("metrics", {}).get("train/skipped", 0), config.training.steps)
        for stage, config in stages
        if isinstance(config, Recipe)
    )


def _scored(plan: SweepPlan) -> int:
    """Trajectories that were scored: all evaluations score the same."""
    return len(plan.evaluations[0].steps[0].stage.manifest()["trajectories"])


def _left_out(plan: SweepPlan) -> str:
    """How many simulation files of which latent caches could not be encoded."""
    counts = []
    for stage in (step.stage for step in plan.steps if step.stage.kind == "latents"):
        splits = stage.manifest()["splits"].values()
        skipped = sum(len(split.get("skipped", {})) for split in splits)
        counts.append((stage.what, skipped, skipped + sum(len(split["shards"]) for split in splits)))
    return _list_counts(counts)


def _list_counts(counts: Iterable[tuple[str, float, int]]) -> str:
    """Counts that are not zero, of how many, by the names of stages."""
    return "; ".join(f"{name} {count:.0f} of {total}" for name, count, total in counts if count) or "none"


@dataclasses.dataclass(frozen=True)
class _Truth:
    """The first scored trajectory: its name, its states after the context, and their lead times."""

    name: str
    states: np.ndarray
    lead_times: list[int]


def _truth(plan: SweepPlan) -> _Truth:
    config, split = plan.config.evaluation, plan.splits["test"]
    index, start = choose_parts(split, config).parts[0]
    trajectory = split.trajectories[index]
    truth = split.read(index, start, trajectory.steps, config.stride)[:, config.context :]
    valid = inside(truth, split.system)
    truth = blank(truth, None if valid is None else valid[0, 0])
    lead_times = [config.stride * (i + 1) for i in range(truth.shape[1])]
    return _Truth(trajectory.id, as_plane(truth.numpy(), split.system.dimensions), lead_times)


def _examples(plan: SweepPlan, truth: _Truth) -> list[Example]:
    """The first scored trajectory at a few lead times, as every method at each rate sees it."""
    channel = plan.system.channels.index(plan.system.shown)
    shown = np.unique(np.linspace(0, len(truth.lead_times) - 1, SHOWN).astype(int))
    times = [truth.lead_times[i] for i in shown]
    examples = []
    for n in plan.config.latent_channels:
        pictures = [
            (row.name, shrink(row.states[channel, shown], PICTURE))
            for row in itertools.chain([Row("Truth", None, truth.states)], _rows(plan, n))
            if row.scale == "truth"
        ]
        title = f"{plan.system.shown}, compression {plan.compression(n):g}: {truth.name}"
        examples.append(Example(title, pictures, times))
    return examples


def _film(plan: SweepPlan, truth: _Truth) -> Film:
    """The same trajectory at all lead times, for every field."""
    rows = [select_frames(Row("Truth", None, truth.states))]
    rows += map(select_frames, _rows_of(plan, None))
    for n in plan.config.latent_channels:
        rows += map(select_frames, _rows(plan, n))
    times = [truth.lead_times[i] for i in choose_frames(len(truth.lead_times))]
    limits = limits_of(truth.states)
    return Film(truth.name, plan.system.channels, times, rows, plan.system.shown, limits)


def _rows(plan: SweepPlan, n: int) -> Iterator[Row]:
    """What every method at a rate makes of the trajectory: ensembles first, then what has one member."""
    yield Row("Reconstruction", plan.compression(n), _states(plan.evaluation("autoencoder", n)))
    yield from _rows_of(plan, n)


def _rows_of(plan: SweepPlan, n: int | None) -> Iterator[Row]:
    """What every emulator of a space, with its first seed, makes of the trajectory."""
    for one in sorted(_first_seeds(plan), key=lambda one: not one.kind.stochastic):
        if one.latent_channels == n:
            yield from _rows_of_one(plan, one)


def _first_seeds(plan: SweepPlan) -> list[PlannedEmulator]:
    """The emulators of a sweep with the first of their training seeds."""
    return list({(one.name, one.latent_channels): one for one in reversed(plan.emulators)}.values())[::-1]


def _rows_of_one(plan: SweepPlan, one: PlannedEmulator) -> Iterator[Row]:
    """What an emulator makes of the trajectory, with the most solver steps: mean, members, deviation."""
    kind, n = one.kind, one.latent_channels
    steps = max(plan.config.solver_steps) if kind.sampler_steps else None
    stage = plan.evaluation(one, solver_steps=steps)
    rate = None if n is None else plan.compression(n)
    title = kind.title + (" in pixel space" if n is None else "")
    if not kind.stochastic:
        yield Row(title, rate, _states(stage))
        return
    kept = (stage.folder / MOMENTS).exists()  # earlier evaluations kept members alone
    if kept:
        yield Row(f"{title}, mean", rate, _states(stage, MOMENTS), method=title)
    for i in range(len(read_array(stage.folder / EXAMPLE))):
        yield Row(f"{title}, member {i + 1}", rate, _states(stage, number=i), method=title)
    if kept:
        deviation = _states(stage, MOMENTS, 1)
        yield Row(f"{title}, deviation of members", rate, deviation, scale="spread", method=title)


def _states(stage: Stage, name: str = EXAMPLE, number: int = 0) -> np.ndarray:
    """One of the members, or of the moments, that an evaluation kept of its first trajectory.

    They stay on disk, so that only what is shown is read.
    """
    states = read_array(stage.folder / name)[number]
    return as_plane(states, states.ndim - 2)


def timings(plan: SweepPlan) -> Iterator[Timing]:
    """Of the simulator, and of emulators with the sweep's own context and the first seed: with others they
    take as long."""
    yield from _simulator(plan)
    first = {plan.emulator(one).fingerprint for one in _first_seeds(plan)}
    for trial in plan.evaluations:
        stage = trial.steps[0].stage
        assert isinstance(stage.config, EvaluationConfig)
        own_context = stage.config.context == plan.config.evaluation.context
        if own_context and stage.inputs.get("emulator") in first:
            yield _timing(trial)


def _timing(trial: Trial) -> Timing:
    stage = trial.steps[0].stage
    key = read_subject(stage.folder / "metrics.parquet")
    models = {need.kind: need.folder for need in trial.needs}
    return Timing(
        model=key["model"],
        guided=bool(key["guidance"]),
        seconds=stage.manifest()["seconds_per_state"],
        space=key["space"],
        compression=key["compression"] if key["space"] == "latent" else None,
        solver_steps=key["solver_steps"],
        members=key["members"],
        training=training_seconds(models["emulators"]),
        autoencoder=training_seconds(models["autoencoders"]) if "autoencoders" in models else None,
    )


def _simulator(plan: SweepPlan) -> list[Timing]:
    """Seconds per emulated state of the simulator, where the files or the description say."""
    first = plan.splits["test"].trajectories[0]
    with open_hdf5(first.file) as file:
        seconds = file.attrs.get("seconds_per_trajectory")
    stride, per_state = plan.config.evaluation.stride, plan.system.seconds_per_state
    if seconds is not None:
        return [Timing(model="simulator", seconds=float(seconds) / ((first.steps - 1) / stride))]
    return [] if per_state is None else [Timing(model="simulator", seconds=stride * per_state)]
