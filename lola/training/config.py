"""Configurations of training: the optimiser and the loop."""

import dataclasses
from typing import Annotated, Literal

from lola.core.config import (
    Config,
    Count,
    Fraction,
    Gpus,
    NotNegative,
    Positive,
    Size,
    Within,
    check_gpus,
    require,
    runtime_field,
)
from lola.training.order import OrderConfig
from lola.training.precision import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config):
    """How gradients become steps.

    Arguments:
        name: The method. PSGD and SOAP are preconditioned and Muon orthogonalises matrices (`heavyball`); the
            others are torch's.
        learning_rate: The peak rate.
        betas: Decay rates of the first and second moments; PSGD, and Muon of matrices, use the first alone.
        weight_decay: Decoupled weight decay.
        preconditioner_probability: PSGD: how often the preconditioner is updated, at last.
        precondition_frequency: SOAP: steps between updates of the eigenbases.
        max_dimension: Larger dimensions are preconditioned diagonally.
    """

    name: Literal["adamw", "adam", "psgd", "soap", "muon"] = "adamw"
    learning_rate: Positive = 1e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    weight_decay: NotNegative = 0.0
    preconditioner_probability: Annotated[float, Within("[0, 1]")] = 1 / 64
    precondition_frequency: Count = 10
    max_dimension: Annotated[int, Within("[1, 1e9]")] = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """How a model is trained.

    Arguments:
        steps: Global steps.
        minutes: Minutes of training, in place of `steps`: as many steps as fit, by a throughput that is
            measured on this machine before anything is trained, and recorded under the storage root. What
            changes the time of a step or of a report, such as `workers` or `report_every`, changes them.
        batch_size: Samples per global step, over all workers.
        optimizer: The optimiser.
        warmup: Steps of linear warm-up.
        clip: Largest gradient norm; larger gradients are scaled down to it.
        ema: Decay of the moving average of weights that is kept, validated and saved next to the weights;
            0 keeps none. The decay warms up from 0.1.
        precision: The type of the network's arithmetic; weights stay float32.
        valid_samples: Size of the fixed validation set.
        seed: Seeds weights, sample order, masks, times and noise.
        order: What else determines the order of samples.
        report_every: Steps between reports, validations and checkpoints.
        accumulate: Micro-batches that each worker splits its share of a step into, to save memory.
        recompute: Whether blocks recompute their activations in the backward pass, to save memory.
        compile: Whether the network is compiled, block by block.
        workers: Training processes: a number, or the fewest and the most, which follow the cluster as it
            loses and gains nodes.
        gpus: GPUs per worker; below 1 a share of one, whose memory and time its trainings share.
        cpus: CPUs per worker; 0 is the share of its GPUs in those of their node.
        max_failures: How often failed workers are restarted from their last checkpoint, -1 for always; nodes
            that are lost after a preemption notice are not counted.
        resize_every: Seconds between checks for resources for more workers, where `workers` is a range.
        checkpoints: The folder, absolute or a URL, that checkpoints go to while it trains; else the stage's.
        keep: Checkpoints kept while it trains, the best by validation loss, in addition to the last.
    """

    common = ("steps", "minutes", "batch_size", "workers", "gpus")

    steps: Count
    minutes: Annotated[float, Within("(0, 1e7]")] | None = runtime_field(None)
    batch_size: Size = 64
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    warmup: Annotated[int, Within("[0, 1e12]")] = 0
    clip: Positive = 1.0
    ema: Fraction = 0.0
    precision: Precision = "float32"
    valid_samples: Count = 64
    seed: int = 0
    order: OrderConfig = dataclasses.field(default_factory=OrderConfig)
    report_every: Count = runtime_field(100)
    accumulate: Size = runtime_field(1)
    recompute: bool = runtime_field(False)
    compile: bool = runtime_field(False)
    workers: Size | tuple[Size, Size] = runtime_field(1)
    gpus: Gpus = runtime_field(0.0)
    cpus: Annotated[int, Within("[0, 4096]")] = runtime_field(1)
    max_failures: Annotated[int, Within("[-1, 1e9]")] = runtime_field(3)
    resize_every: Annotated[float, Within("(0, 1e9]")] = runtime_field(60.0)
    checkpoints: str | None = runtime_field(None)
    keep: Annotated[int, Within("[1, 1e9]")] = runtime_field(1)

    @property
    def fewest_workers(self) -> int:
        """How many training processes there must be."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """How many training processes there may be."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    def validate(self) -> None:
        require(
            self.warmup <= self.steps or self.minutes is not None,
            f"--warmup must not exceed --steps {self.steps}, not {self.warmup}",
        )
        fewest, most = self.fewest_workers, self.most_workers
        require(fewest <= most, f"--workers takes the fewest, then the most; {fewest} exceeds {most}")
        require(
            most <= self.batch_size,
            f"a --batch-size of {self.batch_size} cannot be split over {most} --workers",
        )
        check_gpus(self.gpus)
        require(
            most == 1 or float(self.gpus).is_integer(),
            f"--gpus {self.gpus:g} is a share of one, which only a training of 1 worker can have, not {most}",
        )
        require(self.cpus > 0 or self.gpus > 0, "--cpus must be at least 1 where --gpus is 0")
        require(
            self.accumulate <= self.batch_size // most,
            f"a --batch-size of {self.batch_size} over {most} workers cannot be split into "
            f"{self.accumulate} micro-batches (--accumulate)",
        )
