"""Evaluation as Ray tasks over trajectories and start states, joined into tidy Parquet.

A part, one trajectory from one start state, is committed once, as a temporary folder that is renamed, or
uploaded with `COMPLETION_FILE` at the end; a committed part is never computed again. A task takes several
parts and commits them one by one, so that a task that is lost with its node, and tried again by Ray
elsewhere, goes on after the last. Models are loaded once per task, and on CPUs, where processes are kept,
once per process and evaluation; on GPUs a process, which keeps to the first GPU that it sees, ends with its
task. Tasks return nothing and share one copy of their arguments, so that the object store holds next to
nothing.

A part is a function of the configuration and its own trajectory and start alone, whatever task it is in.
"""

import collections
import dataclasses
import functools
import io
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from lola.core.errors import LolaError
from lola.core.strict_json import null_if_not_finite
from lola.core.waiting import Reminder
from lola.data.systems import System
from lola.data.well.datasets import Datasets
from lola.data.well.splits import WellSplit
from lola.distributed.cluster.causes import failure_reason
from lola.distributed.cluster.resources import (
    ClusterResources,
    ResourceRequest,
    cluster_resources,
    describe_pending,
)
from lola.distributed.cluster.waits import wait_for_any
from lola.distributed.jobs.worker import task_threads
from lola.distributed.trials import InputDataset, Step
from lola.emulation.emulator import Emulator, load_autoencoder, load_emulator, trained_system
from lola.evaluation.climate import Climate, find_climate
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.record import record_pictures, record_scores
from lola.evaluation.scores.rows import PARQUET, ROWS, Subject
from lola.evaluation.tables.lead_times import count_diverged, summarise
from lola.evaluation.tables.stored import read_array, read_table
from lola.evaluation.trajectory import choose_parts, evaluate_trajectory
from lola.models.autoencoder import Autoencoder
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath, file_exists, find_files, first_line, read_bytes
from lola.storage.stages import Stage, atomic_path, read_manifest

EXAMPLE, MOMENTS = "example.npy", "moments.npy"
COMPLETION_FILE = "seconds"  # written last: a part that has it is complete
TURN_S = 60.0  # seconds without a task, once one has run, before it is logged: evaluations take turns
TASKS_PER_WORKER = 4  # so that workers end at about the same time; on GPUs one, since each starts a process


@dataclasses.dataclass(frozen=True)
class EvaluationRun:
    """A subject to score as a stage.

    Arguments:
        subject: The key columns of its rows.
        system: The physical system: how it is scored and, where no emulator says it, what it is.
        autoencoder, emulator: Folders of the finished models it needs.
    """

    stage: Stage
    config: EvaluationConfig
    subject: Subject
    system: System
    datasets: Datasets
    autoencoder: AnyPath | None = None
    emulator: AnyPath | None = None


def evaluation_step(
    stage: Stage,
    system: System,
    datasets: Datasets,
    *,
    dataset: str,
    trajectories: int,
    model: str,
    compression: float | None = None,
    training_seed: int = 0,
    autoencoder: AnyPath | None = None,
    emulator: AnyPath | None = None,
) -> Step:
    """The evaluation whose stage is configured by an `EvaluationConfig`.

    Arguments:
        dataset: The fingerprint of the split that the configuration names.
        model: The subject's `model` column.
        compression: The rate of its latent space; None in pixel space.
        autoencoder, emulator: Folders of the models it needs, which are finished by the time it is made.
    """
    config = stage.config
    assert isinstance(config, EvaluationConfig)
    key: dict[str, Any] = {
        "model": model,
        "space": "pixel" if compression is None else "latent",
        "sampler": config.sampler.title if config.sampler else "",
        "solver_steps": config.sampler.steps if config.sampler else 0,
        "context": config.context,
    }
    subject = Subject(
        system=stage.system,
        dataset=stage.inputs["dataset"],
        fingerprint=stage.fingerprint,
        compression=compression or 1.0,
        training_seed=training_seed,
        overlap=config.overlap,
        guidance=config.guided,
        **key,
    )
    run = EvaluationRun(stage, config, subject, system, datasets, autoencoder, emulator)
    tags = {"system": stage.system, "stage": "evaluation", "compression": f"{subject.compression:g}", **key}
    tags["split"] = config.split
    if autoencoder or emulator:
        tags["training_seed"] = training_seed
    reads = InputDataset(f"{stage.system}/{config.split}", dataset, "evaluation", datasets.root)
    total = min(config.trajectories, trajectories)
    return Step(stage, functools.partial(run_evaluation, run), tags, total, reads=(reads,))


def run_evaluation(run: EvaluationRun) -> None:
    """Score every part that is not scored yet, join the tables and commit the stage.

    Raises:
        LolaError: Parts failed; they are named, and those that did not are kept.
    """
    config, started = run.config, time.perf_counter()
    system = trained_system(run.emulator) if run.emulator else run.system
    if run.system.described:  # it may have been scored in another way when the emulator was trained
        system = system.scored_as(run.system)
    split = run.datasets.open(system, config.split)
    chosen = choose_parts(split, config)
    parts = [_Part(run.stage.folder, index, start) for index, start in chosen.parts]
    if chosen.short:
        EventLog(run.stage.folder).notice(
            f"left out {chosen.short} of {chosen.short + len(parts)} start states of {run.stage.name}: "
            "their trajectories end before a state is left to predict"
        )
    _remove_corrupt(run, parts)
    _score(run, split, parts)
    joined = {}
    for name in ("metrics", "spectra"):
        joined[name] = pa.concat_tables([read_table(part.folder / f"{name}.parquet") for part in parts])
        with atomic_path(run.stage.folder / f"{name}.parquet") as tmp_path:
            pq.write_table(joined[name], tmp_path, row_group_size=ROWS, **PARQUET)
    for name in (EXAMPLE, MOMENTS):
        if (parts[0].folder / name).exists():
            with atomic_path(run.stage.folder / name) as tmp_path:
                tmp_path.write_bytes(read_bytes(parts[0].folder / name))
    timing = float(np.median([float(read_bytes(part.folder / COMPLETION_FILE)) for part in parts]))
    summary = summarise(joined["metrics"], system.ranges, system.spectrum_ranges, config.split)
    diverged = count_diverged(joined["metrics"])
    record_scores(run.stage, config, joined["metrics"], summary, timing, len(parts), diverged)
    kept = [name for name in (MOMENTS, EXAMPLE) if (run.stage.folder / name).exists()]
    if kept:
        predicted, place = read_array(run.stage.folder / kept[0])[0], (parts[0].index, parts[0].start)
        record_pictures(run.stage, config, split, place, predicted, run.autoencoder)
    run.stage.commit(
        trajectories=[split.trajectories[index].id for index in chosen.trajectories],
        short={"starts": chosen.short, "of": chosen.short + len(parts)},
        rows={name: table.num_rows for name, table in joined.items()},
        diverged={"rollouts": diverged, "of": len(parts)},
        metrics=null_if_not_finite(summary),
        seconds=time.perf_counter() - started,
        seconds_per_state=timing,
    )


@dataclasses.dataclass(frozen=True)
class _Part:
    """A trajectory from a start state, of the evaluation in a folder."""

    stage: AnyPath
    index: int
    start: int

    @property
    def folder(self) -> AnyPath:
        return self.stage / "parts" / self.name

    @property
    def name(self) -> str:
        return f"{self.index:05d}-{self.start:04d}"

    @property
    def committed(self) -> bool:
        return file_exists(self.folder / COMPLETION_FILE)


def _committed(stage: AnyPath) -> set[str]:
    """The names of the parts that are committed, by one listing."""
    whole = (path.parent.name for path in find_files(stage / "parts") if path.name == COMPLETION_FILE)
    return {name for name in whole if not name.startswith(".")}  # a temporary folder


def _remove_corrupt(run: EvaluationRun, parts: list[_Part]) -> None:
    """Remove the parts in a folder that are not whole, which are scored again; objects appear whole."""
    for part in parts:
        folder = part.folder
        if not isinstance(folder, Path) or not folder.is_dir():
            continue
        # Reports show the states of the first alone, and those of the test split
        kept = (EXAMPLE,) if part == parts[0] and run.config.split == "test" else ()
        fault = _fault(folder, ("metrics.parquet", "spectra.parquet", COMPLETION_FILE, *kept))
        if fault:
            EventLog(run.stage.folder).notice(f"{fault}; its trajectory is scored again")
            shutil.rmtree(folder)


def _fault(part: Path, names: tuple[str, ...]) -> str:
    """What is wrong with a file of a part's folder; empty if nothing is. Of tables, footers are read."""
    optional = tuple(name for name in (EXAMPLE, MOMENTS) if (part / name).exists())
    for path in (part / name for name in dict.fromkeys(names + optional)):
        try:
            if path.suffix == ".parquet":
                pq.read_metadata(path)
            elif path.suffix == ".npy":
                np.load(path, mmap_mode="r")
            else:
                float(path.read_text())
        except (OSError, ValueError, EOFError, pa.ArrowException) as error:
            return f"{path} is corrupt ({first_line(error)})"
    return ""


def _score(run: EvaluationRun, split: WellSplit, parts: list[_Part]) -> None:
    """Score what is not scored yet, reporting how many parts are."""
    committed, cluster = _committed(run.stage.folder), cluster_resources()
    left = [part for part in parts if part.name not in committed]
    gpus = run.config.gpus if run.config.gpus >= 0 else gpus_per_task(run, cluster)
    size = parts_per_task(len(left), gpus, cluster)
    event_log, failures, first = EventLog(run.stage.folder), [], None
    if not left:
        return
    training = run.datasets.open(split.system, "train") if run.config.subject == "climatology" else None
    climate, missing = find_climate(run.datasets, split, run.config)
    if missing:
        event_log.notice(missing)
    run_ref = ray.put((run, split, training, climate, parts[0]))
    task = (_evaluate_on_gpu if gpus else _evaluate).options(num_gpus=gpus, scheduling_strategy="SPREAD")
    tasks = {task.remote(run_ref, left[i : i + size]): left[i : i + size] for i in range(0, len(left), size)}
    waiting, total = collections.Counter(part.index for part in left), len({part.index for part in parts})
    request = task_request(gpus)
    reminder = Reminder(lambda: describe_pending("", request, at_least=len(tasks)), event_log.waiting)
    while tasks:
        finished = wait_for_any(ray.wait, tasks, reminder)
        reminder.first = TURN_S
        reminder.restart()
        mine = tasks.pop(finished)
        try:
            ray.get(finished)
        except ray.exceptions.RayError as error:
            first = first or error
            committed_parts = [part.committed for part in mine]
            lost = mine[committed_parts.index(False)] if False in committed_parts else mine[-1]
            failures.append(
                f"{split.trajectories[lost.index].id} from state {lost.start}: {failure_reason(error)}"
            )
            mine = [part for part, whole in zip(mine, committed_parts, strict=True) if whole]
        # Only this process's tasks commit parts: listing all of them each time would be quadratic
        waiting -= collections.Counter(part.index for part in mine)
        done = total - len(waiting)  # trajectories from all of their start states
        event_log.metrics(done, {"progress/trajectories": done})
    if failures:
        raise LolaError(
            f"{len(failures)} of the tasks that score {run.stage.name} failed: {failures[0]}"
        ) from first


def task_request(gpus: float) -> ResourceRequest:
    """What a task of an evaluation takes."""
    return ResourceRequest("evaluation tasks", "", 1, 1, gpus)


def gpus_per_task(run: EvaluationRun, cluster: ClusterResources) -> float:
    """GPUs of a task that names none: one if there are any, or if they may come and trained the models."""
    if cluster.gpus or not cluster.grows:
        return min(1, cluster.gpus)
    models = [read_manifest(folder) for folder in (run.autoencoder, run.emulator) if folder]
    return float(any(model.get("speed", {}).get("device", "cpu") != "cpu" for model in models))


def parts_per_task(parts: int, gpus: float, cluster: ClusterResources) -> int:
    """How many parts a task takes: one where nodes may come, which then find tasks to do.

    Arguments:
        gpus: GPUs of a task; a task takes one CPU.
    """
    workers = max(1, int(cluster.gpus / gpus if gpus else cluster.cpus))
    return 1 if cluster.grows else max(1, -(-parts // ((1 if gpus else TASKS_PER_WORKER) * workers)))


_Shared = tuple[EvaluationRun, WellSplit, WellSplit | None, Climate | None, _Part]


def _evaluate_parts(shared: _Shared, parts: list[_Part]) -> None:
    """Score parts, each into a temporary folder that is renamed; the first keeps its states."""
    run, split, training, climate, first = shared
    models = _load(run.autoencoder, run.emulator, run.config)
    for part in parts:
        if part.committed:
            continue
        with task_threads(1):
            result = evaluate_trajectory(
                run.config,
                run.subject,
                split,
                part.index,
                part.start,
                autoencoder=models[0],
                emulator=models[1],
                training=training,
                climate=climate,
            )
        with atomic_path(part.folder, COMPLETION_FILE) as tmp_path:
            tmp_path.mkdir()
            pq.write_table(result.metrics, tmp_path / "metrics.parquet", **PARQUET)
            pq.write_table(result.spectra, tmp_path / "spectra.parquet", **PARQUET)
            if part == first and run.config.split == "test":  # reports show no others
                _write_array(tmp_path / EXAMPLE, result.example)
                if result.moments is not None:
                    _write_array(tmp_path / MOMENTS, result.moments)
            (tmp_path / COMPLETION_FILE).write_text(repr(result.seconds))


_evaluate = ray.remote(num_cpus=1, max_retries=3)(_evaluate_parts)
_evaluate_on_gpu = ray.remote(num_cpus=1, max_retries=3, max_calls=1)(_evaluate_parts)


def _write_array(path: Path, array: np.ndarray) -> None:
    """Write an array; NumPy's own writing hides why the filesystem refused."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    path.write_bytes(buffer.getbuffer())


@functools.lru_cache(maxsize=1)
def _load(
    autoencoder: AnyPath | None, emulator: AnyPath | None, config: EvaluationConfig
) -> tuple[Autoencoder | None, Emulator | None]:
    """The models of an evaluation, on the task's GPU if it has one; finished stages never change."""
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    own = config.weights if config.subject == "autoencoder" else "raw"
    codec = load_autoencoder(autoencoder, own).to(device) if autoencoder else None
    if emulator is None:
        return codec, None
    model = load_emulator(emulator, config.sampler, config.weights)
    on_device = model.model.to(device)
    return codec, dataclasses.replace(model, model=on_device, autoencoder=codec, inference=config.inference)
