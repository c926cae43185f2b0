r"""How long the steps of a training take here, and how many of them fit into given minutes.

With `t` the seconds of a step, `u` the further seconds of one that updates a preconditioner, `U(S)` the
number of those among the first `S` steps (`preconditioner_updates`), and `v` the seconds of a report, each
`R` steps and at the end, `S` steps take

    T(S) = S t + U(S) u + ceil(S / R) v

A report is the validation, on raw and on averaged weights, and a checkpoint. Steps are timed as a training
takes them, on noise of the shape of its samples. Reading data, which threads do meanwhile, is not included,
nor is what comes before the first step and after the last one.
"""

import bisect
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
import torch.distributed
from torch import Tensor, nn

from lola.core.keys import Key
from lola.core.seeding import seed_process
from lola.data.state import Batch
from lola.training.buffers import WindowSource
from lola.training.checkpoint import Position, save_checkpoint
from lola.training.config import TrainingConfig
from lola.training.ema import EMA
from lola.training.loop import Objective, Wrap, prepare, take_step, validate
from lola.training.optim import build_optimizer, preconditioner_updates
from lola.training.stream import ValidationSet

WARM_UP = 3  # steps that are not timed
STEPS = 32  # that are timed, of each sort
FEWEST = 4
LONGEST_S = 20.0  # for the steps of a sort, if more than the fewest fit
RATE = 1e-7  # of learning: weights stay what they are, whatever the noise says


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throughput:
    """Seconds of a step, in addition those of one that updates a preconditioner, and those of a report."""

    step: float
    update: float = 0.0
    report: float = 0.0

    def seconds(self, training: TrainingConfig, steps: int) -> float:
        """`T(S)`, of the first steps of a training."""
        updates = preconditioner_updates(training.optimizer, steps)
        reports = math.ceil(steps / training.report_every)
        return steps * self.step + updates * self.update + reports * self.report

    def steps_within(self, training: TrainingConfig, seconds: float) -> int:
        """The most steps that take no longer than some seconds; 0 if there are none."""
        most = math.ceil(seconds / self.step)
        return bisect.bisect_right(range(1, most + 1), seconds, key=lambda n: self.seconds(training, n))


class Noise:
    """Windows of noise, all alike, for validation; `states` is the shape `(C, L, *grid)`."""

    def __init__(self, count: int, states: tuple[int, ...], parameters: int) -> None:
        self.count, self.window = count, (torch.randn(states), torch.randn(parameters))

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, key: Key) -> tuple[Tensor, ...]:
        return self.window


class Steps:
    """The steps of a training on noise: a call takes one, as the loop takes it.

    Arguments:
        model: Has `loss`; on `device` already.
        states: The shape `(C, L, *grid)` of a sample.
        parameters: The length `P` of a sample's parameters.
        wrap: Makes the module distributed, of `world` workers that all take steps.

    `preconditioned` is whether some steps update a preconditioner and others do not.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        states: tuple[int, ...],
        parameters: int,
        *,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        wrap: Wrap | None = None,
    ) -> None:
        optimizer = config.optimizer.replace(learning_rate=RATE)
        self.config = config.replace(optimizer=optimizer, minutes=None, warmup=0)
        self.model, self.device, self.rank, self.world = model, device, rank, world
        self.optimizer = build_optimizer(optimizer, model.parameters())
        self.preconditioned = bool(getattr(self.optimizer, "precond_schedule", None))
        self.average = EMA(model, config.ema) if config.ema else None
        prepare(model, config)
        self.objective = wrap(Objective(model)) if wrap else Objective(model)
        self.mine = range(rank * config.batch_size // world, (rank + 1) * config.batch_size // world)
        shapes = (len(self.mine), *states), (len(self.mine), parameters)
        batch = Batch(states=torch.randn(shapes[0]), parameters=torch.randn(shapes[1]))
        self.batch = batch.pin() if device.type == "cuda" else batch
        self.taken = 0

    def update_preconditioner(self, always: bool) -> None:
        """Let every step that follows update the preconditioner, or none."""
        self.optimizer.precond_schedule = float(always)  # type: ignore[attr-defined]

    def __call__(self) -> None:
        config = self.config
        seed_process(config.seed, "dropout", self.taken, self.rank)
        keys: list[Key] = [(config.seed, "step", self.taken, i) for i in self.mine]
        take_step(self.objective, self.optimizer, self.batch, keys, config, 0, self.device, self.world)
        if self.average is not None:
            self.average.update(self.model, self.taken)
        self.taken += 1


def measure(
    model: nn.Module,
    config: TrainingConfig,
    states: tuple[int, ...],
    parameters: int,
    *,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    wrap: Wrap | None = None,
    start: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Throughput:
    """Time the steps of a training, and a report.

    Arguments:
        model: As for `Steps`, like those that follow.
        start: Called after the warm-up.
        clock: Returns seconds.
    """
    step = Steps(model, config, states, parameters, device=device, rank=rank, world=world, wrap=wrap)
    averaged = step.average.model if step.average is not None else None
    noise = cast(WindowSource, Noise(config.valid_samples, states, parameters))
    validation = ValidationSet(noise, step.config, rank, world)
    modules = (step.objective, *([Objective(averaged)] if averaged is not None else []))

    def report() -> None:
        for module in modules:
            validate(module, validation, step.config, device)
        if rank == 0:
            with tempfile.TemporaryDirectory() as folder:
                save_checkpoint(Path(folder), model, step.optimizer, Position(), averaged)

    def seconds_of(work: Callable[[], None], times: int = 1) -> float:
        started = clock()
        for _ in range(times):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (clock() - started) / times

    def seconds_of_steps() -> float:
        one = torch.tensor(seconds_of(step), dtype=torch.float64, device=device)
        if world > 1:  # all workers take as many
            torch.distributed.all_reduce(one, torch.distributed.ReduceOp.MAX)
        return seconds_of(step, max(FEWEST, min(STEPS, int(LONGEST_S / float(one)))))

    ways = (False, True) if step.preconditioned else (None,)
    for updated in (*ways, *ways[:1]):
        if updated is not None:
            step.update_preconditioner(updated)
        seconds_of(step, WARM_UP)
    report()
    start()
    timed = []
    for updated in ways:
        if updated is not None:
            step.update_preconditioner(updated)
        timed.append(seconds_of_steps())
    return Throughput(step=timed[0], update=max(0.0, timed[-1] - timed[0]), report=seconds_of(report))
