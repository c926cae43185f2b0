"""Trainings that are given minutes: how many steps these are, for every model on this machine.

A stage's fingerprint holds its steps, so that they must be known before anything is planned. One option, such
as `--emulator-training.minutes`, is of several models, and each has a number of steps of its own: a plan asks
its `WallClock` wherever it configures a training.

The throughput of a training is measured once (`lola.training.timing_process`) and recorded under the storage
root, in `throughput/`, so that the same command finds the stages that it began. A record is of a model, its
samples, what of the training costs time, and the machine's hardware; after it is deleted the throughput is
measured again, and the stages are others.
"""

import dataclasses
import datetime
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lola.core.config import Config, fingerprint, option_name, prefix_options, require
from lola.core.errors import DataError, LolaError
from lola.core.strict_json import dumps, loads
from lola.storage.remote import AnyPath, file_exists, read_bytes
from lola.storage.stages import atomic_path
from lola.training.config import TrainingConfig
from lola.training.peak import processor_name
from lola.training.throughput import Throughput
from lola.training.timing_process import Request, gpu_names, measure_throughput
from lola.workflows.model_shape import ModelShape
from lola.workflows.sweep import Recipe

if TYPE_CHECKING:
    from lola.workflows.base_plan import BasePlan

FOLDER = "throughput"
UNKNOWN_STEPS = 10**12  # of a training that nothing is known of, and fewer of further ones
P = TypeVar("P", bound="BasePlan")
Find = Callable[["TimedTraining", int], Throughput]


@dataclasses.dataclass(frozen=True)
class TimedTraining:
    """A training that is given minutes.

    Arguments:
        option: The option that holds its configuration, such as `emulator_training`.
    """

    option: str
    training: TrainingConfig
    shape: ModelShape

    @property
    def threads(self) -> int:
        """Those of a worker: `OMP_NUM_THREADS` if it is set, as in Ray's workers, else its CPUs."""
        share = self.training.cpus or max(
            1, int((self.training.gpus or 1) * (cores() // max(1, len(_gpus()))))
        )
        return int(os.environ.get("OMP_NUM_THREADS") or share)

    @functools.cached_property
    def measured(self) -> dict[str, Any]:
        """All that its throughput depends on, as JSON values."""
        training, model = self.training, self.shape.model.replace(warm_start=None)
        optimizer = training.optimizer
        fields = ("batch_size", "precision", "valid_samples", "accumulate", "recompute", "compile")
        return {
            "model": {"type": type(model).__name__, **model.to_json()},
            "sizes": self.shape.sizes,
            "states": self.shape.states,
            "parameters": self.shape.parameters,
            "training": {name: getattr(training, name) for name in fields}
            | {"ema": training.ema > 0, "optimizer": optimizer.replace(learning_rate=1.0).to_json()},
            "workers": training.most_workers,
            "threads": self.threads,
            "hardware": hardware(training.gpus > 0),
        } | ({"gpus": training.gpus} if 0 < training.gpus < 1 else {})

    def record(self, root: AnyPath) -> AnyPath:
        """The file that its throughput is recorded in."""
        return root / FOLDER / f"{type(self.shape.model).__name__}-{fingerprint(self.measured)[:16]}.json"

    def recorded(self, root: AnyPath) -> Throughput | None:
        """Its throughput as recorded, if it is.

        Raises:
            DataError: The record is corrupt.
        """
        path = self.record(root)
        if not file_exists(path):
            return None
        try:
            found = Throughput(**loads(read_bytes(path))["seconds"])
            require(found.step > 0, "no time")
            return found
        except (ValueError, KeyError, TypeError, LolaError) as error:
            raise DataError(
                f"{path} is no record of a throughput ({error}); delete it and run again"
            ) from None

    def measure(self, root: AnyPath, copies: int) -> Throughput:
        """Measure its throughput as one of `copies` alike that run at once, and record it.

        Raises:
            ConfigError: This machine lacks the GPUs, or the CPUs.
            LolaError: A step fails.
        """
        workers, name = self.training.most_workers, option_name(self.option)
        if self.training.gpus:
            available, kind = len(_gpus()), "GPUs"
        else:
            available, kind = cores() // self.threads, "workers' CPUs"
        require(
            workers <= available,
            f"{name}.minutes: {workers} workers are timed on this machine, which has {available} {kind}; "
            f"start on one that has enough, or give {name}.steps",
        )
        request = Request(
            self.shape.model, self.shape.sizes, self.training, self.shape.states, self.shape.parameters
        )
        most = available // workers
        if self.training.gpus:  # a GPU is another training's too where it is shared
            most = available * int(1 / self.training.gpus) if self.training.gpus < 1 else 1
        copies = max(1, min(copies, most))
        try:
            found = measure_throughput(request, threads=self.threads, copies=copies)
        except LolaError as error:
            raise LolaError(f"{name}.minutes: {error}; give {name}.steps") from error
        path = self.record(root)
        if earlier := self.recorded(root):  # of another program that measured meanwhile
            return earlier
        with atomic_path(path) as tmp_path:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            seconds = dataclasses.asdict(found)
            record = {**self.measured, "copies": copies, "seconds": seconds, "time": now}
            tmp_path.write_text(dumps(record, indent=1) + "\n")
        return found


class WallClock:
    """The steps of trainings that are given minutes.

    Arguments:
        root: The storage root, whose records count.
        estimates: Throughputs by the trainings' records, where none is recorded.
        provisional: Whether trainings that nothing is known of take a number that stands for them.
    """

    def __init__(
        self,
        root: AnyPath,
        estimates: Mapping[AnyPath, Throughput] | None = None,
        *,
        provisional: bool = False,
    ) -> None:
        self.root, self.provisional = root, provisional
        self.estimates = dict(estimates or {})
        self.unknown: list[TimedTraining] = []
        self._known: dict[AnyPath, Throughput | None] = {}

    def resolve(self, option: str, training: TrainingConfig, shape: ModelShape) -> TrainingConfig:
        """A training with the steps of its minutes; unchanged if it is given none.

        Raises:
            ConfigError: The minutes are too few for a step, or for its warm-up; or nothing is known of it.
        """
        if training.minutes is None:
            return training
        timed, name = TimedTraining(option, training, shape), option_name(option)
        record = timed.record(self.root)
        if record not in self._known:
            self._known[record] = timed.recorded(self.root) or self.estimates.get(record)
        throughput = self._known[record]
        if throughput is None:
            require(
                self.provisional,
                f"{name}.minutes: no throughput is recorded in {record}; run the command, which measures it",
            )
            records = [each.record(self.root) for each in self.unknown]
            if record not in records:
                self.unknown.append(timed)
                records.append(record)
            return training.replace(steps=UNKNOWN_STEPS - records.index(record))
        steps = throughput.steps_within(training, 60 * training.minutes)
        with prefix_options(f"{option}."):
            given = f"--minutes {training.minutes:g} fit {steps} steps of {type(shape.model).__name__} here"
            require(
                steps > 0,
                f"{given}, of {throughput.step:.3g} s and {throughput.report:.3g} s per report; give more",
            )
            require(
                training.warmup <= steps,
                f"{given}, fewer than the {training.warmup} of --warmup; give more minutes",
            )
        return training.replace(steps=steps)

    def is_recorded(self, training: TrainingConfig, shape: ModelShape) -> bool:
        """Whether the steps of a training's minutes are those of a record, rather than of an estimate."""
        return TimedTraining("", training, shape).recorded(self.root) is not None

    def unknown_in(self, plan: "BasePlan") -> list[tuple[TimedTraining, int]]:
        """The trainings of a plan that nothing is known of, with the number of stages of their kind that are
        given minutes, and so may run at once."""
        stages = plan.timed.values()
        alike = Counter(stage.kind for stage in stages)
        found = {cast(Recipe, stage.config).training.steps: alike[stage.kind] for stage in stages}
        return [
            (timed, found[UNKNOWN_STEPS - i])
            for i, timed in enumerate(self.unknown)
            if UNKNOWN_STEPS - i in found
        ]


def has_minutes(config: object) -> bool:
    """Whether a configuration, or one within it, is of a training that is given minutes."""
    if isinstance(config, tuple):
        return any(map(has_minutes, config))
    given = isinstance(config, TrainingConfig) and config.minutes is not None
    return given or (isinstance(config, Config) and any(map(has_minutes, vars(config).values())))


def is_timed(config: object) -> bool:
    """Whether a stage's configuration is of a training that is given minutes."""
    return isinstance(config, Recipe) and config.training.minutes is not None


def with_steps(build: Callable[[], P], part: Callable[[P], P], find: Find) -> P:
    """A plan whose trainings have the steps of their minutes.

    Arguments:
        build: Makes the plan.
        part: Takes the part of it that is wanted: no other training is timed.
        find: The throughput of a training of which none is recorded, and of which so many may run at once.

    Raises:
        LolaError: Minutes do not fit a training, or its throughput cannot be found.
    """

    def plan(estimates: Mapping[AnyPath, Throughput]) -> P:
        whole = build()
        whole.clock = WallClock(whole.root, estimates, provisional=True)
        return part(whole)

    first = plan({})
    if not has_minutes(first.config):
        return first
    unknown = first.clock.unknown_in(first)
    if not unknown:
        return first
    second = plan({timed.record(first.root): find(timed, copies) for timed, copies in unknown})
    list(second.steps)  # minutes that do not fit are refused now
    return second


def describe_steps(plan: "BasePlan") -> Iterator[str]:
    """How many steps each training takes that is given minutes."""
    for stage in plan.timed.values():
        training = cast(Recipe, stage.config).training
        given = f"{stage.what}: {training.minutes:g} minutes"
        yield f"{given} are {training.steps:,} steps, as recorded in {plan.root / FOLDER}"


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


@functools.cache
def _gpus() -> tuple[str, ...]:
    return tuple(gpu_names())


def hardware(on_gpu: bool) -> str:
    """What this machine trains on, in words: the class that a throughput is recorded for."""
    if on_gpu:
        return " and ".join(sorted(set(_gpus()))) or "no GPU"
    return f"{processor_name()}, {cores()} cores"
