"""Evaluation as Ray tasks over test trajectories and start states, joined into tidy Parquet.

A part, one trajectory from one start state, is committed once, as a folder that is written aside and renamed,
or uploaded with `LAST` at the end; what is there is never computed again. A task takes several parts and
commits them one by one, so that a task that is lost with its node, and tried again by Ray elsewhere, goes on
behind the last. Models are loaded once per task, and on CPUs, where Ray keeps its processes, once per process
and evaluation. Tasks return nothing and share one copy of what they are told, so that the object store holds
next to nothing.

A part is a function of the configuration and its own trajectory and start alone, whatever task it is in.
"""

import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from lola.autoencoder import Autoencoder
from lola.data.datasets import Datasets
from lola.data.systems import get_system
from lola.data.well import WellSplit
from lola.distributed.cluster import gpus as cluster_gpus
from lola.distributed.cluster import logical_cpus
from lola.emulation import Emulator, load_autoencoder, load_emulator
from lola.errors import LolaError
from lola.evaluation.evaluate import EvaluationConfig, choose_trajectories, evaluate_trajectory
from lola.evaluation.score import Subject
from lola.evaluation.tables import summarise
from lola.remote import AnyPath, files_below, is_there, read_whole
from lola.spool import Spool
from lola.storage import Stage, atomic_path

EXAMPLE, MOMENTS = "example.npy", "moments.npy"
LAST = "seconds"  # tells that a part is whole
TASKS_PER_WORKER = 4  # so that workers end at about the same time, and a lost task loses little


@dataclasses.dataclass(frozen=True)
class EvaluationRun:
    """A subject to score as a stage.

    Arguments:
        stage: Where the results go.
        config: What is scored.
        subject: The key columns of its rows.
        datasets: The Well datasets.
        autoencoder, emulator: Folders of the finished models it needs.
    """

    stage: Stage
    config: EvaluationConfig
    subject: Subject
    datasets: Datasets
    autoencoder: AnyPath | None = None
    emulator: AnyPath | None = None


def run_evaluation(run: EvaluationRun) -> None:
    """Score every part that is not scored yet, join the tables and commit the stage.

    Raises:
        LolaError: Parts failed; they are named, and those that did not are kept.
    """
    system, config = get_system(run.stage.system), run.config
    split = run.datasets.open(system, "test")
    chosen = choose_trajectories(split, config)
    parts = [_Part(run.stage.folder, index, start) for index in chosen for start in config.starts]
    _score(run, split, parts)
    joined = {}
    for name in ("metrics", "spectra"):
        joined[name] = pa.concat_tables([read_table(part.folder / f"{name}.parquet") for part in parts])
        with atomic_path(run.stage.folder / f"{name}.parquet") as aside:
            pq.write_table(joined[name], aside, compression="zstd")
    for name in (EXAMPLE, MOMENTS):
        if (parts[0].folder / name).exists():
            with atomic_path(run.stage.folder / name) as aside:
                aside.write_bytes(read_whole(parts[0].folder / name))
    timing = float(np.median([float(read_whole(part.folder / LAST)) for part in parts]))
    summary = summarise(joined["metrics"], system.ranges, system.spectrum_ranges)
    Spool(run.stage.folder).metrics(0, summary | {"test/seconds_per_state": timing})
    run.stage.commit(
        trajectories=[split.trajectories[index].id for index in chosen],
        rows={name: table.num_rows for name, table in joined.items()},
        metrics=summary,
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
        return is_there(self.folder / LAST)


def _committed(stage: AnyPath) -> set[str]:
    """The names of the parts that are committed, by one listing."""
    return {path.parent.name for path in files_below(stage / "parts") if path.name == LAST}


def _score(run: EvaluationRun, split: WellSplit, parts: list[_Part]) -> None:
    """Score what is not scored yet, reporting how many parts are."""
    there = _committed(run.stage.folder)
    left = [part for part in parts if part.name not in there]
    gpus = run.config.gpus if run.config.gpus >= 0 else min(1, cluster_gpus())
    workers = max(1, int(cluster_gpus() / gpus) if gpus else logical_cpus())
    size = max(1, len(left) // (TASKS_PER_WORKER * workers))
    told = ray.put((run, split, parts[0]))
    task = _evaluate.options(num_gpus=gpus, scheduling_strategy="SPREAD")
    tasks = {task.remote(told, left[i : i + size]): left[i : i + size] for i in range(0, len(left), size)}
    spool, failures = Spool(run.stage.folder), []
    while tasks:
        (finished,), _ = ray.wait(list(tasks))
        mine = tasks.pop(finished)
        try:
            ray.get(finished)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            reason = str(cause) if isinstance(cause, LolaError) else f"{type(cause).__name__}: {cause}"
            lost = next((part for part in mine if not part.committed), mine[-1])
            failures.append(f"{split.trajectories[lost.index].id} from state {lost.start}: {reason}")
        done = len(_committed(run.stage.folder)) // len(run.config.starts)
        spool.metrics(done, {"progress/trajectories": done})
    if failures:
        raise LolaError(f"{len(failures)} of the tasks that score {run.stage.name} failed: {failures[0]}")


@ray.remote(num_cpus=1, max_retries=3)
def _evaluate(told: tuple[EvaluationRun, WellSplit, _Part], parts: list[_Part]) -> None:
    """Score parts, each into a folder of its own, written aside and renamed; the first keeps its states."""
    run, split, first = told
    models = _load(run.autoencoder, run.emulator, run.config)
    for part in parts:
        if part.committed:
            continue
        result = evaluate_trajectory(
            run.config, run.subject, split, part.index, part.start, autoencoder=models[0], emulator=models[1]
        )
        with atomic_path(part.folder, LAST) as aside:
            aside.mkdir()
            pq.write_table(result.metrics, aside / "metrics.parquet")
            pq.write_table(result.spectra, aside / "spectra.parquet")
            if part == first:
                np.save(aside / EXAMPLE, result.example)
                if result.moments is not None:
                    np.save(aside / MOMENTS, result.moments)
            (aside / LAST).write_text(repr(result.seconds))


def read_table(path: AnyPath) -> pa.Table:
    """A table of a stage."""
    with path.open("rb") as file:
        return pq.read_table(file)


def read_array(path: AnyPath) -> np.ndarray:
    """An array of a stage."""
    with path.open("rb") as file:
        return np.load(file)


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
    return codec, dataclasses.replace(model, model=model.model.to(device), autoencoder=codec)
