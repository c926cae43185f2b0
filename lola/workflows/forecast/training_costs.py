"""What the models of a sweep cost to train, told without data and without a cluster.

Sizes that the data decide are those of the sweep's simulation, else those of The Well's published ensembles.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from lola.core.config import located, require
from lola.core.errors import ConfigError
from lola.core.waiting import Log, describe_progress, progress_reminder
from lola.data.systems import Ensemble, System, get_system
from lola.training.cost import Estimate, Hardware, estimate
from lola.training.counting import count
from lola.training.loop import TrainingConfig
from lola.workflows.sweep import EmulatorModel, SweepConfig, kind_of

Kind = Literal["autoencoder", "latent", "pixel"]
PIXEL_FEATURES = 2048  # of the paper's tokens in pixel space
FLOAT = 4


@dataclasses.dataclass(frozen=True)
class Job:
    """A model to train.

    Arguments:
        name: Its name, such as `diffusion f32c64`.
        system: The physical system.
        kind: What it is trained on.
        model: Its configuration, and `sizes` the arguments of its `build`.
        training: How it is trained.
        states: The shape `(C, L, *grid)` of a sample.
        sample_bytes: Bytes of a sample in storage.
    """

    name: str
    system: System
    kind: Kind
    model: Any
    sizes: Mapping[str, int]
    training: TrainingConfig
    states: tuple[int, ...]
    sample_bytes: int

    def estimate(self, hardware: Hardware) -> Estimate:
        """What its training costs."""
        build = functools.partial(self.model.build, **self.sizes)
        parameters = self.sizes.get("parameters", ensemble_of(self.system).parameter_count)
        counts = count(build, self.states, parameters, self.training.precision)
        return estimate(counts, self.training, self.sample_bytes, hardware)


def jobs(config: SweepConfig) -> list[Job]:
    """Every model that a sweep trains."""
    rates, models = config.latent_channels, (config.diffusion, config.neural_solver)
    return [
        *(autoencoder_job(config, n) for n in rates),
        *(emulator_job(config, model, n) for model in models for n in rates),
        *([emulator_job(config, config.pixel, None)] if config.pixel is not None else []),
    ]


def autoencoder_job(config: SweepConfig, n: int, grid: tuple[int, ...] | None = None) -> Job:
    """The autoencoder with `n` latent channels, on data of a grid, by default that of `grid_of`.

    Raises:
        ConfigError: Its down-sampling does not divide the grid.
    """
    system, grid = get_system(config.system), grid or grid_of(config)
    with located("autoencoder."):
        config.autoencoder.check_grid(grid)
    states = (len(system.channels), 1, *grid)
    return Job(
        name=f"autoencoder {_rate(config, n)}",
        system=system,
        kind="autoencoder",
        model=config.autoencoder.replace(latent_channels=n),
        sizes={"channels": states[0], "spatial": len(grid)},
        training=config.autoencoder_training,
        states=states,
        sample_bytes=FLOAT * math.prod(states),
    )


def emulator_job(
    config: SweepConfig, model: EmulatorModel, n: int | None, grid: tuple[int, ...] | None = None
) -> Job:
    """An emulator in the latent space with `n` channels, or (None) in pixel space, on data of a grid.

    Raises:
        ConfigError: Its patches do not tile the grid.
    """
    system, grid = get_system(config.system), grid or grid_of(config)
    channels, number = len(system.channels), FLOAT
    if n is not None:
        with located("autoencoder."):
            config.autoencoder.check_grid(grid)
        factors = config.autoencoder.factors(len(grid))
        grid = tuple(size // factor for size, factor in zip(grid, factors, strict=True))
        channels, number = n, np.dtype(config.cache.dtype).itemsize
    with located(f"{'pixel' if n is None else kind_of(model)}.network."):
        model.network.check_grid(grid, config.window)
    states = (channels, config.window, *grid)
    return Job(
        name=f"{kind_of(model)} {_rate(config, n)}",
        system=system,
        kind="pixel" if n is None else "latent",
        model=model,
        sizes={
            "channels": channels,
            "parameters": ensemble_of(system).parameter_count,
            "spatial": len(grid),
            "window": config.window,
        },
        training=config.pixel_training if n is None else config.emulator_training,
        states=states,
        sample_bytes=number * math.prod(states),
    )


def grid_of(config: SweepConfig) -> tuple[int, ...]:
    """The grid of a sweep's simulations, else of the published ensemble."""
    if config.simulation is not None:
        return config.simulation.grid
    return ensemble_of(get_system(config.system)).grid


def ensemble_of(system: System) -> Ensemble:
    """The published ensemble of a system; a system that has none is a `ConfigError`."""
    if system.published is None:
        raise ConfigError(f"no ensemble of {system.name} was published: a dry run cannot know its sizes")
    return system.published


def show(chosen: Sequence[Job], hardware: Hardware, published: Mapping[tuple[str, Kind], float] = {}) -> None:
    """Print what training costs: a line per model and, for one model alone, all that it is made of.

    Arguments:
        chosen: The models.
        hardware: The GPUs.
        published: GPU hours that were published, by system and kind, to stand beside.
    """
    console = Console(width=max(Console().width, 130))
    estimates = estimate_all(chosen, hardware, console.print)
    table = Table(box=None, pad_edge=False)
    headings = ["model", "million", "TFLOP/step", "GPUs", "GB/GPU", "s/step", "read MB/s", "GPU hours"]
    headings += ["published"] if published else []
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    table.add_column("to fit")
    system = None
    for job, cost in zip(chosen, estimates, strict=True):
        if job.system != system:
            system = job.system
            table.add_row(system.name, style="bold")
        hours = [f"{published[job.system.name, job.kind]:.0f}"] if published else []
        table.add_row(
            f"  {job.name}",
            f"{cost.parameters / 1e6:.1f}",
            f"{cost.flops / 1e12:.4g}",
            str(job.training.most_workers),
            f"{cost.memory.total / 1e9:.1f}",
            f"{cost.seconds:.3g}",
            f"{cost.read / 1e6:.4g}",
            f"{cost.gpu_hours:.4g}",
            *hours,
            cost.remedy or _fits(job.training),
        )
    console.print(table)
    if len(chosen) == 1:
        for line in _details(chosen[0], estimates[0]):
            console.print(line, highlight=False)
    for line in _assumptions(hardware):
        console.print(line, style="dim", highlight=False)


def estimate_all(chosen: Sequence[Job], hardware: Hardware, log: Log) -> list[Estimate]:
    """What each training costs, saying every few seconds how many models are counted."""
    estimates: list[Estimate] = []
    total = len(chosen)
    counted = lambda: f"counted {describe_progress(len(estimates), total, 'models', reminder.elapsed)}"  # noqa: E731
    reminder = progress_reminder(counted, log)
    for job in chosen:
        estimates.append(job.estimate(hardware))
        reminder.poll()
    return estimates


def _fits(training: TrainingConfig) -> str:
    """That a batch fits, and by which means."""
    ways = [f"{training.accumulate} micro-batches"] if training.accumulate > 1 else []
    ways += ["recomputed blocks"] if training.recompute else []
    return "fits" + (" with " + " and ".join(ways) if ways else "")


def _details(job: Job, cost: Estimate) -> Iterable[str]:
    memory, training = cost.memory, job.training
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "exchange": memory.buckets,
        "average": memory.average,
        training.optimizer.name: memory.optimizer,
        "activations": memory.activations.at(memory.samples),
    }
    sample = " x ".join(map(str, job.states))
    yield f"sample: {sample} (channels, states, grid), {job.sample_bytes / 1e6:.3g} MB in storage"
    at_once = f", {memory.samples} of them at once" if memory.samples < memory.share else ""
    yield f"batch: {training.batch_size}, {memory.share} on each of {training.most_workers} GPUs{at_once}"
    gigabytes = ", ".join(f"{name} {value / 1e9:.2f}" for name, value in parts.items() if value)
    yield f"memory of a GPU: {memory.total / 1e9:.2f} GB of {cost.usable / 1e9:.0f}: {gigabytes}"
    yield f"step: {cost.seconds:.3g} s (arithmetic {cost.arithmetic:.3g}, memory traffic {cost.traffic:.3g})"
    hours = training.steps * cost.seconds / 3600
    yield f"run: {training.steps} steps, {hours:.1f} hours, {cost.gpu_hours:.1f} GPU hours"


def _assumptions(hardware: Hardware) -> Iterable[str]:
    peak = f"{hardware.bfloat16 / 1e12:g} TFLOP/s in bfloat16, {hardware.float32 / 1e12:g} in float32"
    yield (
        f"Assumed: GPUs of {hardware.memory / 1e9:g} GB, {hardware.reserve:.0%} of it kept free, {peak}, "
        f"{hardware.utilisation:.0%} of it reached, {hardware.bandwidth / 1e12:g} TB/s to memory."
    )
    yield "Not counted: element-wise operations, normalisation, the optimiser's arithmetic, communication."


def pixel_refusal(config: SweepConfig) -> ConfigError:
    """Why a sweep has no emulator in pixel space."""
    system, grid = get_system(config.system), grid_of(config)
    channels = len(system.channels)
    require(len(grid) == 3, "this sweep has no emulator in pixel space; give another preset")
    width = max(
        p
        for p in range(1, min(grid) + 1)
        if not any(size % p for size in grid) and channels * p**3 <= PIXEL_FEATURES
    )
    tokens = config.window * math.prod(size // width for size in grid)
    return ConfigError(
        f"{system.name} has no emulator in pixel space: patches {width} cells wide, the widest whose values "
        f"a token of {PIXEL_FEATURES} features can hold, make {tokens} tokens of a window; use --space latent"
    )


def _rate(config: SweepConfig, n: int | None) -> str:
    spatial = get_system(config.system).dimensions
    return "pixel" if n is None else f"{config.autoencoder.rate(spatial)}c{n}"
