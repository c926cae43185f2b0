r"""The training step of the paper's models at the batch of one GPU.

With `F` operations counted per step (`lola.training.counting`), `s` the seconds of a step and `p` the
operations per second of a large matrix product that is measured here,

    MFU = F / (s p)

Steps that update a preconditioner take longer: `s` is the mean over the whole training. Optimisers of
`heavyball` run uncompiled, as they do in training; compiled, they have cases of their own.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Literal
from unittest import mock

import heavyball
import torch
from benchmarks.figures import Figure
from benchmarks.gpu_target import Target
from benchmarks.paper import Trained
from benchmarks.profiling import profile

from lola.models.autoencoder_config import CodecConfig
from lola.nn import layers
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.cost import estimate_cost
from lola.training.counting import Counts, count_step
from lola.training.hardware import Hardware
from lola.training.optim import build_optimizer, fast_products, preconditioner_updates
from lola.training.peak import GPUS, device_kind
from lola.training.throughput import Steps, Throughput

Variant = Literal["", "tuned", "channels first"]
FIRST_STEP_S = 60.0
OPTIMISER_SHARE = 0.05
MEMORY_ERROR = 0.1
ROOM = 1.1  # over the forecast of memory, to begin


def operations(counts: Counts, training: TrainingConfig) -> float:
    """Operations of a step of one worker; those that are repeated do not count."""
    return training.accumulate * counts.flops.fixed + training.batch_size * counts.flops.per_sample


def mfu(flops: float, seconds: float, peak: float) -> float:
    """Model FLOP utilisation: operations per second over those of the peak."""
    return flops / seconds / peak


@contextlib.contextmanager
def varied(variant: str) -> Iterator[None]:
    """A context in which convolutions work as a variant of `TrainingCase` says."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = variant == "tuned"
    formats = mock.patch.dict(layers.MEMORY_FORMATS, clear=True)
    try:
        with formats if variant == "channels first" else contextlib.nullcontext():
            yield
    finally:
        torch.backends.cudnn.benchmark = before


@dataclasses.dataclass(frozen=True)
class TrainingCase:
    """A training to time.

    Arguments:
        trained: The model.
        compiled: Whether it is compiled.
        mfu: The goal, of compiled models.
        variant: What else convolutions may do: choose the fastest of their algorithms by trying (`tuned`), or
            take states in the other memory format (`channels first`).
    """

    trained: Trained
    compiled: bool
    mfu: float
    variant: Variant = ""

    def __call__(self, target: Target) -> Iterator[Figure]:
        trained = target.sized(self.trained)
        training = trained.of_a_gpu.replace(compile=self.compiled, cpus=1)
        build = functools.partial(trained.model.build, **trained.sizes)
        parameters = trained.sizes.get("parameters", 0)
        counts = count_step(build, trained.shape, parameters, training.precision)
        forecast = estimate_cost(counts, training, 0.0, Hardware()).memory.total
        target.require_memory(ROOM * forecast)
        before = 0
        if target.on_gpu:
            torch.cuda.reset_peak_memory_stats(target.device)
            before = torch.cuda.memory_allocated(target.device)
        with varied(self.variant):
            steps = Steps(target.build(trained), training, trained.shape, parameters, device=target.device)
            speed, first, shares = time_steps(steps, target)
        seconds = speed.seconds(training, training.steps) / training.steps  # reports were not timed
        yield Figure("first step", first, "s", most=FIRST_STEP_S if self.compiled else None)
        yield Figure("a step", 1e3 * seconds, "ms")
        yield Figure("samples", training.batch_size / seconds, "/s")
        flops = operations(counts, training)
        yield Figure("operations", flops / 1e12, "TFLOP")
        reached = mfu(flops, seconds, target.peak[training.precision]["product"])
        yield Figure("MFU", reached, "%", least=self.mfu if self.compiled else None)
        if self.compiled and not self.variant and (kind := device_kind(target.device)) in GPUS:
            published = mfu(flops, seconds, GPUS[kind].peak_flops(training.precision))
            yield Figure("of the published peak", published, "%")
            network = "autoencoder" if isinstance(trained.model, CodecConfig) else "emulator"
            target.utilisation.setdefault(network, []).append(published)
        if target.on_gpu:
            taken = torch.cuda.max_memory_allocated(target.device) - before
            yield Figure("memory", taken / 1e9, "GB", note=f"{forecast / 1e9:.4g} GB forecast")
            yield Figure("memory's error", abs(taken / forecast - 1), "%", most=MEMORY_ERROR)
        update = preconditioner_updates(training.optimizer, training.steps) / training.steps * speed.update
        for group, share in shares.items():
            share *= speed.step / seconds
            if group == "optimiser":
                goal = OPTIMISER_SHARE if self.compiled else None
                note: str = training.optimizer.name
                note += f", of which {update / seconds:.2%} updates" if steps.preconditioned else ""
                yield Figure("share of optimiser", share + update / seconds, "%", most=goal, note=note)
            else:
                yield Figure(f"share of {group}", share, "%")


def time_steps(steps: Steps, target: Target) -> tuple[Throughput, float, dict[str, float]]:
    """The seconds of steps and of updates, those of the very first step, and the shares of a step's time."""
    if steps.preconditioned:
        steps.update_preconditioner(False)
    first = once(steps, target)
    plain = target.seconds(steps)
    shares = profile(steps, target.device).shares()
    updated = plain
    if steps.preconditioned:
        steps.update_preconditioner(True)
        updated = target.seconds(steps)
    return Throughput(step=plain, update=max(0.0, updated - plain)), first, shares


def once(work: Callable[[], object], target: Target) -> float:
    """The seconds of one call."""
    started = time.perf_counter()
    work()
    if target.on_gpu:
        torch.cuda.synchronize(target.device)
    return time.perf_counter() - started


@dataclasses.dataclass(frozen=True)
class OptimizerCase:
    """A step of an optimiser alone on the weights of a model.

    Arguments:
        trained: The model.
        optimizer: The optimiser.
        compiled: Whether `heavyball` compiles it.
    """

    trained: Trained
    optimizer: OptimizerConfig
    compiled: bool

    def __call__(self, target: Target) -> Iterator[Figure]:
        with fast_products(self.optimizer, "bfloat16"):
            yield from self.figures(target)

    def figures(self, target: Target) -> Iterator[Figure]:
        weights = list(target.build(target.sized(self.trained)).parameters())
        optimizer = build_optimizer(self.optimizer.replace(learning_rate=1e-7), weights)
        heavyball.utils.compile_mode = "default" if self.compiled else None
        preconditioned = bool(getattr(optimizer, "precond_schedule", None))
        ways: dict[float | None, str] = {None: ""}
        if preconditioned:
            ways = {0.0: " without an update", 1.0: " with an update"}
        for weight in weights:
            weight.grad = torch.randn_like(weight)

        def step() -> None:
            for weight in weights:  # some optimisers take gradients for their own
                weight.grad = weight.grad if weight.grad is not None else torch.randn_like(weight)
            optimizer.step()

        for schedule, how in ways.items():
            if schedule is not None:
                optimizer.precond_schedule = schedule  # type: ignore[attr-defined]
            yield Figure(f"first step{how}", once(step, target), "s")
            yield Figure(f"a step{how}", 1e3 * target.seconds(step), "ms")
