"""Evaluation as Ray tasks: one per test trajectory, each committed once, then joined into tidy Parquet."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from lola.data.datasets import Datasets
from lola.data.systems import get_system
from lola.data.well import WellSplit
from lola.emulation import load_autoencoder, load_emulator
from lola.evaluation.evaluate import EvaluationConfig, choose_trajectories, evaluate_trajectory
from lola.evaluation.score import Subject
from lola.evaluation.tables import summarise
from lola.spool import Spool
from lola.storage import Stage, atomic_path


@dataclasses.dataclass(frozen=True)
class EvaluationRun:
    """A subject to score as a stage.

    Arguments:
        stage: Where the results go.
        config: What is scored.
        subject: The key columns of its rows.
        datasets: The Well datasets.
        autoencoder, emulator: Folders of the finished models it needs.
        gpus: GPUs per task.
    """

    stage: Stage
    config: EvaluationConfig
    subject: Subject
    datasets: Datasets
    autoencoder: Path | None = None
    emulator: Path | None = None
    gpus: float = 0.0


def run_evaluation(run: EvaluationRun) -> None:
    """Score every chosen trajectory that is not scored yet, join the tables and commit the stage."""
    system = get_system(run.stage.system)
    split = run.datasets.open(system, "test")
    chosen = choose_trajectories(split, run.config)
    parts = [run.stage.folder / "parts" / f"{index:05d}" for index in chosen]
    spool = Spool(run.stage.folder)
    tasks = [
        _evaluate.options(num_gpus=run.gpus, scheduling_strategy="SPREAD").remote(run, split, index, part)
        for index, part in zip(chosen, parts, strict=True)
        if not part.exists()
    ]
    done = len(parts) - len(tasks)
    while tasks:
        finished, tasks = ray.wait(tasks)
        ray.get(finished)
        done += len(finished)
        spool.metrics(done, {"progress/trajectories": done})
    joined = {}
    for name in ("metrics", "spectra"):
        joined[name] = pa.concat_tables([pq.read_table(part / f"{name}.parquet") for part in parts])
        with atomic_path(run.stage.folder / f"{name}.parquet") as aside:
            pq.write_table(joined[name], aside, compression="zstd")
    for name in ("example.npy", "moments.npy"):
        if (parts[0] / name).exists():
            with atomic_path(run.stage.folder / name) as aside:
                shutil.copyfile(parts[0] / name, aside)
    timing = float(np.median([float((part / "seconds").read_text()) for part in parts]))
    summary = summarise(joined["metrics"], system.ranges)
    spool.metrics(0, summary | {"test/seconds_per_state": timing})
    run.stage.commit(
        trajectories=[split.trajectories[index].id for index in chosen],
        rows={name: table.num_rows for name, table in joined.items()},
        metrics=summary,
        seconds_per_state=timing,
    )


@ray.remote(num_cpus=1, max_retries=3)
def _evaluate(run: EvaluationRun, split: WellSplit, index: int, part: Path) -> None:
    """Score one trajectory into a folder of its own, written aside and renamed."""
    config = run.config
    own = config.weights if config.subject == "autoencoder" else "raw"
    autoencoder = load_autoencoder(run.autoencoder, own) if run.autoencoder else None
    emulator = load_emulator(run.emulator, config.sampler, config.weights) if run.emulator else None
    result = evaluate_trajectory(
        config, run.subject, split, index, autoencoder=autoencoder, emulator=emulator
    )
    with atomic_path(part) as aside:
        aside.mkdir()
        pq.write_table(result.metrics, aside / "metrics.parquet")
        pq.write_table(result.spectra, aside / "spectra.parquet")
        np.save(aside / "example.npy", result.example)
        if result.moments is not None:
            np.save(aside / "moments.npy", result.moments)
        (aside / "seconds").write_text(repr(result.seconds))
