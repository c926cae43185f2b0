"""A storage root made below Ray, finished or interrupted, whose files are damaged one by one."""

import contextlib
import dataclasses
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from inline import run_inline
from solo_training import train_in_this_process
from stages import small_sweep

from lola.data.description import EULER
from lola.data.well.scan import ScannedFile
from lola.data.well.simulation_files import simulation_files
from lola.data.well.splits import WellSplit
from lola.distributed.jobs import compute_statistics as statistics
from lola.distributed.jobs import encode, evaluate
from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.distributed.trials import Step, make
from lola.evaluation.page.page import Page, Section
from lola.storage import stages as storage
from lola.storage.event_log import read_events
from lola.storage.stages import Stage
from lola.training.config import OptimizerConfig
from lola.workflows.plan import SweepPlan
from lola.workflows.report_stage import commit_report, report_stage
from lola.workflows.sweep import SweepConfig

KINDS = ("statistics", "autoencoders", "latents", "emulators", "evaluations", "reports")
TIMES = ("seconds", "speed", "seconds_per_state")  # what differs from run to run
ALIKE = ("train/loss", "train/skipped")
KEPT = (0.0, 0.5)  # the share of a file that a power cut leaves


def tiny_sweep() -> SweepConfig:
    """A sweep of a few training steps, whose statistics are computed."""
    config = small_sweep()
    training = config.autoencoder_training.replace(
        steps=3,
        report_every=1,
        batch_size=1,
        valid_samples=1,
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-3),
    )
    return config.replace(
        pixel=None,
        statistics="computed",
        solver_steps=(2,),
        autoencoder=config.autoencoder.replace(channels=(4,), blocks=(1,)),
        autoencoder_training=training.replace(ema=0.5),
        emulator_training=training.replace(steps=2),
        evaluation=config.evaluation.replace(members=2, trajectories=2, starts=(16,)),
    )


@contextlib.contextmanager
def below_ray() -> Iterator[pytest.MonkeyPatch]:
    """Let everything that a sweep starts run in this process."""
    with pytest.MonkeyPatch.context() as patched:
        train_in_this_process(patched)
        run_inline(patched)
        patched.setattr(statistics, "_stream", _stream)
        patched.setattr(evaluate, "evaluate_trajectory", Scored(evaluate.evaluate_trajectory))
        yield patched


@dataclasses.dataclass
class Scored:
    """Scores a trajectory once: scoring is a function of what is not damaged here."""

    genuine: Callable
    results: dict = dataclasses.field(default_factory=dict)

    def __call__(self, config: Any, subject: Any, split: Any, index: int, start: int, **models: Any) -> Any:
        if (index, start) not in self.results:
            result = self.genuine(config, subject, split, index, start, **models)
            self.results[index, start] = result
        return self.results[index, start]


def _stream(splits: Sequence[WellSplit], block: int, log: Any) -> list[dict]:
    files = (ScannedFile(split, file.members) for split in splits for file in simulation_files(split))
    return [row for file in files for table in file.blocks(0, block) for row in table.to_pylist()]


class Root:
    """The stages of a sweep in a storage root, one of each kind.

    Arguments:
        root: The storage root.
        well: The datasets.
    """

    def __init__(self, root: Path, well: Path) -> None:
        self.root, self.well, config = root, well, tiny_sweep()
        plan = SweepPlan(config, root, well)
        goal = plan.evaluation(plan.planned("diffusion", 16), solver_steps=2)
        self.plan = plan.towards(plan.cache(16), goal)
        steps = [step for trial in self.plan.trials for step in trial.steps]
        self.steps: dict[str, Step] = {step.stage.kind: step for step in steps}
        report = report_stage(root, "euler", "sweep", {"evaluation": goal.fingerprint})
        self.steps["reports"] = Step(report, lambda: self._report(goal, report), {}, 1)

    def _report(self, evaluation: Stage, report: Stage) -> None:
        rows = evaluate.read_table(evaluation.folder / "metrics.parquet").to_pandas()
        plain = Section("rows", "Rows", "All rows.", plain=pd.DataFrame({"rows": [len(rows)]}))
        page = Page(title="Title", system=EULER, findings=(), sections=(plain,))
        commit_report(report, page, {"metrics": rows})

    def make_all(self) -> None:
        """Make what is not finished."""
        for step in self.steps.values():
            start(step)

    def files(self, kind: str) -> list[Path]:
        """The files of a stage, by their paths within it."""
        folder = self.steps[kind].stage.folder
        return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def start(step: Step) -> None:
    """Do what a trial does with a stage, in a process that has looked at none yet."""
    storage._verified.clear()
    storage._warned.clear()
    evaluate._load.cache_clear()
    if not step.stage.finished:
        with step.stage.logged_lease(lambda text: None):
            make(step)


class Killed(BaseException):
    """The end of a process."""


@dataclasses.dataclass
class Countdown:
    """A function that kills its process after so many calls."""

    genuine: Callable
    left: int

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if not self.left:
            raise Killed
        self.left -= 1
        return self.genuine(*arguments, **options)


def interrupt(step: Step) -> None:
    """Begin a new stage of a kind, and end half-way: after two checkpoints, three shards, one part."""
    owner, name, left = {
        "autoencoders": (CheckpointStore, "persist", 2),
        "latents": (encode, "write_shard", 3),
        "evaluations": (evaluate, "evaluate_trajectory", 1),
    }[step.stage.kind]
    shutil.rmtree(step.stage.folder)
    with pytest.MonkeyPatch.context() as patched:
        count = Countdown(getattr(owner, name), left)
        patched.setattr(owner, name, lambda *arguments, **options: count(*arguments, **options))
        with pytest.raises(Killed):
            start(step)


def digest(stage: Stage) -> dict[str, Any]:
    """What a finished stage holds, without what tells of times."""
    found: dict[str, Any] = {}
    for path in sorted(stage.folder.rglob("*")):
        name = path.relative_to(stage.folder).as_posix()
        if name.startswith("parts/"):  # which nobody reads of a finished stage
            continue
        if path.suffix in (".parquet", ".safetensors", ".npy", ".yaml", ".html", ".csv", ".md", ".tex"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {key: value for key, value in stage.manifest().items() if key not in TIMES}
    metrics = manifest.get("metrics", {}).items()
    alike = {key: value for key, value in metrics if "train/" not in key or key in ALIKE}
    return found | {"manifest": manifest | {"metrics": alike}}


def messages(stage: Stage, records: list[logging.LogRecord]) -> str:
    """All events of a stage."""
    notices = [event["text"] for _, event in read_events(stage.folder) if event["kind"] == "notice"]
    return "\n".join([*notices, *(record.getMessage() for record in records)])
