r"""The training loop: the only one, for autoencoders, diffusion models and neural solvers.

A model is seen only as `loss(batch, generator) -> (loss, diagnostics)`, a mean over samples. Worker `r` of
`R` holds `b_r` of the `B` samples of a step and scales its loss by `R b_r / B`, so that the average of
gradients over workers is the gradient of the global batch however it is split. A worker may go through its
`b_r` samples in micro-batches, whose gradients add up; workers exchange gradients once, after the last.
Dropout alone depends on the worker and the micro-batch.

A step whose gradient norm is not finite changes nothing and is counted; `lola.training.divergence` says how
many are too many. Means are those of the steps that were not skipped.
"""

import contextlib
import functools
import itertools
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, cast

import torch
import torch.distributed
from torch import Tensor, nn

from lola.core.config import require
from lola.core.keys import Key
from lola.core.seeding import SampleGenerator, seed_process
from lola.data.state import Batch
from lola.nn.compiling import compile_blocks
from lola.training.buffers import WindowSource
from lola.training.checkpoint import Position, load_checkpoint, save_checkpoint
from lola.training.config import TrainingConfig
from lola.training.divergence import DivergenceCheck
from lola.training.ema import EMA
from lola.training.optim import build_optimizer, fast_products, learning_rate, set_learning_rate
from lola.training.precision import precision
from lola.training.stream import BatchStream, ValidationSet


class Model(Protocol):
    """What training sees of a model."""

    def loss(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a batch, and named diagnostics."""


class Objective(nn.Module):
    """A module whose forward pass is a model's loss, for wrappers that must see every forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        return cast(Model, self.model).loss(batch, generator)


Wrap = Callable[[nn.Module], nn.Module]
Report = Callable[[int, dict[str, float], Callable[[Path], None]], None]
Curve = list[tuple[int, float]]
"""Steps, and the means of the training loss since the step before."""
CURVE_POINTS = 40  # of a training at least, if it has as many steps


def train(
    model: nn.Module,
    config: TrainingConfig,
    training: WindowSource,
    validation: WindowSource,
    *,
    report: Report,
    log: Callable[[str], None] = lambda line: None,
    curve: Callable[[Curve], None] = lambda points: None,
    checkpoint_requested: Callable[[], bool] | None = None,
    progress: Callable[[int], None] = lambda step: None,
    wrap: Wrap | None = None,
    resume: Path | None = None,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
) -> Position:
    """Train a model in place, from its last checkpoint if there is one.

    Arguments:
        model: Has `loss`; on `device` already.
        training, validation: Where windows are read from.
        report: Called by every rank with `(step, metrics, save)` each `report_every` steps and at the end;
            `save` writes a checkpoint into a folder. `metrics` is empty where
            `checkpoint_requested` asked for it.
        log: Called by every rank with the reason why a step was skipped, for the first few skipped steps.
        curve: Called by every rank before a report, with the points of the curve of the training loss since
            the last, if these are more than one.
        checkpoint_requested: Called by every rank after each step without a report; True asks for a
            report at once.
        progress: Called by every rank after each step, with its number.
        wrap: Makes the module distributed; its forward pass must be called for every loss.
        resume: The folder of a checkpoint.

    Raises:
        DivergedError: Too many steps were skipped, or a validation loss is not finite; on every rank.
        DataError: A file cannot be read, or a checkpoint is of another network; perhaps on one rank alone.
    """
    device = torch.device(device)
    optimizer = build_optimizer(config.optimizer, model.parameters())
    average = EMA(model, config.ema) if config.ema else None
    averaged = average.model if average is not None else None
    position = load_checkpoint(resume, model, optimizer, averaged) if resume else Position()
    prepare(model, config)
    objective = wrap(Objective(model)) if wrap else Objective(model)
    stream = _stream(training, config, device, rank, world)
    meter = Meter(device, curve_interval(config))
    validation_set = ValidationSet(validation, config, rank, world)
    check = DivergenceCheck(model, stream, validation, config, device, log)
    objectives = {"valid/loss": objective, "valid/loss_ema": Objective(averaged) if averaged else None}
    for step, (batch, keys) in enumerate(stream.batches(position.step, config.steps), position.step):
        seed_process(config.seed, "dropout", step, rank)
        values, norm, finite = take_step(objective, optimizer, batch, keys, config, step, device, world)
        if finite and average is not None:
            average.update(model, position.step - position.skipped)
        position = Position(step + 1, position.skipped + (not finite))
        meter.add(len(keys), values, norm, stream.waited) if finite else meter.skip()
        meter.mark(position.step)
        check.step(position, not finite, batch, keys)
        progress(position.step)
        save = functools.partial(
            save_checkpoint, model=model, optimizer=optimizer, position=position, average=averaged
        )
        if position.step % config.report_every == 0 or position.step == config.steps:
            metrics = meter.flush() | {
                "train/samples": float(position.step * config.batch_size),
                "train/skipped": float(position.skipped),
                "train/learning_rate": learning_rate(config.optimizer, step, config.steps, config.warmup),
            }
            for name, module in objectives.items():
                if module is not None:
                    metrics[name] = validate(module, validation_set, config, device)
                    check.validation(name, metrics[name], position, module)
            if len(meter.curve) > 1:
                curve(meter.curve)
            report(position.step, metrics, save)
            meter.restart()
        elif checkpoint_requested is not None and checkpoint_requested():
            report(position.step, {}, save)
    return position


def curve_interval(config: TrainingConfig) -> int:
    """The steps between points of the curve of the training loss."""
    return max(1, min(config.report_every, config.steps // CURVE_POINTS))


def _stream(
    source: WindowSource, config: TrainingConfig, device: torch.device, rank: int, world: int
) -> BatchStream:
    return BatchStream(
        source,
        seed=config.seed,
        batch_size=config.batch_size,
        order=config.order,
        rank=rank,
        world=world,
        threads=config.cpus,
        pin=device.type == "cuda",
    )


def prepare(model: nn.Module, config: TrainingConfig) -> None:
    """Make the networks recompute their activations and compile them, in place, as configured.

    Raises:
        ConfigError: No block of the model can recompute.
    """
    blocks = [module for module in model.modules() if hasattr(module, "recompute")]
    require(bool(blocks) or not config.recompute, "recompute: no block of this model can; leave it out")
    for block in blocks:
        block.recompute = config.recompute  # type: ignore[assignment]
    if config.compile:
        for network in model.children():
            compile_blocks(network)


def take_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    keys: list,
    config: TrainingConfig,
    step: int,
    device: torch.device,
    world: int = 1,
) -> tuple[dict[str, Tensor], Tensor, bool]:
    """Change the weights by the gradient of a batch, unless that is not finite.

    Returns:
        This worker's own means of loss and diagnostics, the gradient's norm, and whether it is finite.
    """
    values = _gradient(objective, batch, keys, config, device, world)
    norm = nn.utils.clip_grad_norm_(objective.parameters(), config.clip)
    finite = bool(norm.isfinite())  # the one wait for the device in a step
    if finite:
        _apply(optimizer, config, step)
    optimizer.zero_grad(set_to_none=True)
    return values, norm, finite


def _gradient(
    objective: nn.Module, batch: Batch, keys: list, config: TrainingConfig, device: torch.device, world: int
) -> dict[str, Tensor]:
    """Add up this worker's share of the gradient; returns its own means of loss and diagnostics."""
    objective.train()
    samples = len(keys)
    parts = min(config.accumulate, samples)
    means: dict[str, Tensor] = {}
    for start, stop in itertools.pairwise(samples * part // parts for part in range(parts + 1)):
        with _exchange(objective, last=stop == samples):
            with precision(config.precision, device):
                generator = SampleGenerator(keys[start:stop], device)
                loss, diagnostics = objective(batch.rows(start, stop).to(device), generator)
            (loss * (world * (stop - start) / config.batch_size)).backward()
        for name, value in {"loss": loss, **diagnostics}.items():
            term = value.detach() * ((stop - start) / samples)
            means[name] = means[name] + term if name in means else term
    return means


def _apply(optimizer: torch.optim.Optimizer, config: TrainingConfig, step: int) -> None:
    """Change the weights by their gradients, at the rate of a step."""
    # Preconditioned optimisers draw random numbers, which must be the same on all ranks.
    seed_process(config.seed, "optimizer", step)
    set_learning_rate(optimizer, learning_rate(config.optimizer, step, config.steps, config.warmup))
    with fast_products(config.optimizer, config.precision):
        optimizer.step()


def _exchange(objective: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Whether a backward pass exchanges gradients with other workers: only the last of a step does."""
    no_sync = getattr(objective, "no_sync", None)
    return contextlib.nullcontext() if last or no_sync is None else no_sync()


@torch.no_grad()
def validate(
    objective: nn.Module,
    batches: Iterable[tuple[Batch, list[Key]]],
    config: TrainingConfig,
    device: torch.device,
) -> float:
    """The mean loss over all ranks' shares of the fixed validation set, the same on every rank."""
    objective.eval()
    inner = getattr(objective, "module", objective)  # ranks may hold unequal numbers of batches: no wrapper
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    for batch, keys in batches:
        with precision(config.precision, device):
            loss, _ = inner(batch.to(device), SampleGenerator(keys, device))
        total += loss.double() * len(keys)
        count += len(keys)
    both = torch.stack([total, torch.full_like(total, count)])
    _sum_over_workers(both)
    return float(both[0] / both[1])


class Meter:
    """Means over samples since the last flush, over all workers.

    The seconds that steps waited for their batches become a share of the steps' time, `data_wait`.

    Arguments:
        interval: Steps between points of the curve of the loss.
    """

    def __init__(self, device: torch.device, interval: int = 1) -> None:
        self.device, self.interval = device, interval
        self.sums: dict[str, Tensor] = {}
        self.curve: Curve = []  # of the steps before the last flush
        self._marks: dict[int, Tensor] = {}
        self.samples = self.steps = self.step = 0
        self.waited = 0.0
        self.restart()

    def restart(self) -> None:
        """Restart the clock: time before it, such as a validation, does not count as training."""
        self.since = time.perf_counter()

    def add(self, samples: int, values: dict[str, Tensor], norm: Tensor, waited: float) -> None:
        """Count one step's share of the batch, without waiting for the device that its means are on."""
        for name, value in {**values, "gradient_norm": norm}.items():
            term = value.detach().double() * samples
            self.sums[name] = self.sums[name] + term if name in self.sums else term
        self.waited += samples * waited
        self.samples += samples
        self.steps += 1

    def skip(self) -> None:
        """Count a step that was skipped, whose values may not be finite; its time counts."""
        self.steps += 1

    def mark(self, step: int) -> None:
        """End a step, and perhaps a piece of the curve of the loss, without waiting for the device."""
        self.step = step
        if step % self.interval == 0:
            self._mark()

    def _mark(self) -> None:
        loss = self.sums.get("loss")
        if loss is not None:
            self._marks[self.step] = torch.stack(
                [loss.view(()), torch.full_like(loss.view(()), self.samples)]
            )

    def flush(self) -> dict[str, float]:
        """The means as `train/<name>`, with the throughput; then reset, but for the curve."""
        self._mark()
        names = sorted(self.sums)
        counts = torch.tensor([self.waited, self.samples], dtype=torch.float64, device=self.device)
        totals = torch.cat([*(self.sums[name].view(1) for name in names), counts, *self._marks.values()])
        _sum_over_workers(totals)
        values = totals.tolist()  # on a GPU the steps are done now
        *sums, waited, samples = values[: len(names) + 2]
        self.curve = _differences([*self._marks], values[len(names) + 2 :])
        seconds = time.perf_counter() - self.since
        means = {f"train/{name}": total / samples for name, total in zip(names, sums, strict=True)}
        rates = {
            "train/data_wait": waited / max(samples, 1) * self.steps / seconds,
            "train/seconds_per_step": seconds / self.steps,
            "train/samples_per_second": samples / seconds,
            "train/memory_bytes": peak_memory(self.device),
        }
        self.sums, self.samples, self.steps, self.waited = {}, 0, 0, 0.0
        self._marks = {}
        return means | rates


def _differences(steps: list[int], totals: list[float]) -> Curve:
    """The means between steps of what grew to so much, of so many samples, by then; none if no sample did."""
    ends = [(0.0, 0.0), *zip(totals[::2], totals[1::2], strict=True)]
    pieces = zip(steps, itertools.pairwise(ends), strict=True)
    return [(step, (b[0] - a[0]) / (b[1] - a[1])) for step, (a, b) in pieces if b[1] > a[1]]


def peak_memory(device: torch.device) -> float:
    """The most bytes that any worker took so far: tensors on its GPU, or its process on CPUs."""
    if device.type == "cuda":
        taken = torch.cuda.max_memory_allocated(device)
    else:
        taken = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = torch.tensor(float(taken), dtype=torch.float64, device=device)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return float(largest)


def _sum_over_workers(values: Tensor) -> None:
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
