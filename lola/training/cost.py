r"""What training a model costs: memory, time and reads, from counts and a machine's peak figures.

With `P` parameters and `B` samples per step over `G` GPUs, each goes through its share `b = ceil(B / G)` in
`k` micro-batches of at most `n = ceil(b / k)` samples. Bytes on each GPU are

    weights 4 P, gradients 4 P, buckets of the exchange 4 P (G > 1), average of weights 4 P (if one is kept),
    optimiser S, and the larger of activations A(n) and what the optimiser's step takes, W

with `W` 20 P for PSGD, five copies of the weights, else 0, `A` counted (`lola.training.counting`), all of
them or those that recomputing blocks leave, and `S`, over
parameters of shape `(d_1, ..., d_r)` and `D` the largest dimension that is preconditioned by a matrix,

    Adam   8 P
    Muon   4 P (8 P of parameters of one axis)
    PSGD   4 P + 4 sum q(d_i),  q(d) = d^2 if d <= D and r > 1, else d    (dimensions above 1)
    SOAP   8 P + 8 sum q(d_i),  q(d) = d^2 if 1 < d <= D and r > 1, else 0          (dimensions merged)

They fit when they stay below `(1 - reserve) M`, `M` the GPU's memory: the reserve is for gradients of
activations, workspaces and fragments. With `F(k)` operations counted per step, a fraction `u` of the peak `p`
that real kernels reach, and memory's bandwidth `w`, a step takes the longer of

    arithmetic   F(k) / (G u p) + O / (u p')
    traffic      (5 (A(n_1) + ... + A(n_k)) + 12 P k + 2 S + 12 P (if an average is kept)) / w

where a saved activation is written once and read twice, its gradient written and read; the optimiser reads
and writes weights and its state and reads gradients; adding to a gradient or an average reads two numbers and
writes one. `O` are the operations of Muon's five iterations, `5 (4 m^2 n + 2 m^3)` for a matrix of sides
`m <= n`, which every GPU does, in bfloat16 at a peak of `p'`; of other optimisers they are not counted. Where
blocks recompute their activations, because it is configured or nothing else fits, their forward pass is done
twice: `F` and `A`, here all of them, grow by a third. The exchange of gradients, reading and element-wise
arithmetic are taken to hide behind these.

To keep the GPUs busy, storage must give `B` samples in the time of a step.
"""

import dataclasses
import math

from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.counting import Affine, Counts
from lola.training.hardware import Hardware

FLOAT = 4
PASSES = 5  # over saved activations and their gradients
PSGD_COPIES = 5  # of all weights, which a step of `heavyball` takes: 5.06 measured on an H200
RECOMPUTE = 4 / 3  # forward, forward again and backward, over forward and backward


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each GPU."""

    weights: float
    gradients: float
    buckets: float
    average: float
    optimizer: float
    working: float  # what the optimiser's step takes and gives back, when activations are gone
    activations: Affine  # saved by the forward pass of a micro-batch
    share: int  # samples of a step
    samples: int  # of a micro-batch

    @property
    def resident(self) -> float:
        """Bytes that do not depend on the batch."""
        return self.weights + self.gradients + self.buckets + self.average + self.optimizer

    @property
    def total(self) -> float:
        return self.resident + max(self.working, self.activations.at(self.samples))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """The cost of a training run."""

    parameters: int
    flops: float  # operations per step, over all GPUs
    memory: Memory
    usable: float  # bytes on each GPU that may be used
    # arithmetic, traffic: seconds per step that these alone would take
    arithmetic: float
    traffic: float
    read: float  # bytes per second of samples, over all GPUs
    gpu_hours: float  # GPUs times hours of the whole run
    remedy: str  # what makes the batch fit; empty if it fits

    @property
    def seconds(self) -> float:
        """Seconds per step."""
        return max(self.arithmetic, self.traffic)


def estimate_cost(
    counts: Counts, training: TrainingConfig, sample_bytes: float, hardware: Hardware
) -> Estimate:
    """The cost of a training run on GPUs, one per worker; `sample_bytes` is what storage reads per sample."""
    gpus, parts, weights = training.most_workers, training.accumulate, FLOAT * counts.parameters
    share = math.ceil(training.batch_size / gpus)
    memory = Memory(
        weights=weights,
        gradients=weights,
        buckets=weights if gpus > 1 else 0,
        average=weights if training.ema else 0,
        optimizer=optimizer_bytes(training.optimizer, counts.shapes),
        working=PSGD_COPIES * weights if training.optimizer.name == "psgd" else 0,
        activations=counts.recomputed if training.recompute else counts.activations,
        share=share,
        samples=math.ceil(share / parts),
    )
    usable = (1 - hardware.reserve) * hardware.memory
    remedy, work = _remedy(memory, counts.recomputed, usable, training)
    flops = work * (gpus * parts * counts.flops.fixed + training.batch_size * counts.flops.per_sample)
    arithmetic = flops / (gpus * hardware.utilisation * hardware.peak_flops(training.precision))
    repeated = optimizer_flops(training.optimizer, counts.shapes)
    arithmetic += repeated / (hardware.utilisation * hardware.peak_flops("bfloat16"))
    saved = work * (parts * counts.activations.fixed + share * counts.activations.per_sample)
    moved = PASSES * saved + 3 * (parts * weights + memory.average) + 2 * memory.optimizer
    traffic = moved / hardware.bandwidth
    seconds = max(arithmetic, traffic)
    return Estimate(
        parameters=counts.parameters,
        flops=flops,
        memory=memory,
        usable=usable,
        arithmetic=arithmetic,
        traffic=traffic,
        read=training.batch_size * sample_bytes / seconds,
        gpu_hours=gpus * training.steps * seconds / 3600,
        remedy=remedy,
    )


def optimizer_bytes(config: OptimizerConfig, shapes: tuple[tuple[int, ...], ...]) -> float:
    """Bytes of an optimiser's state over parameters of some shapes."""
    return FLOAT * sum(_state_size(config, shape) for shape in shapes)


def optimizer_flops(config: OptimizerConfig, shapes: tuple[tuple[int, ...], ...]) -> float:
    """Operations of a step's products of matrices in the optimiser; 0 if they are not counted."""
    if config.name != "muon":
        return 0.0
    sides = [sorted((shape[0], math.prod(shape[1:]))) for shape in shapes if len(shape) > 1]
    return float(sum(5 * (4 * m**2 * n + 2 * m**3) for m, n in sides))


def _state_size(config: OptimizerConfig, shape: tuple[int, ...]) -> int:
    """Numbers that the optimiser keeps for a parameter."""
    size, largest = math.prod(shape), config.max_dimension
    if config.name in ("adam", "adamw"):
        return 2 * size
    if config.name == "muon":
        return size if len(shape) > 1 else 2 * size
    if config.name == "psgd":
        shape = tuple(d for d in shape if d > 1) or (1,)
        return size + sum(d * d if len(shape) > 1 and d <= largest else d for d in shape)
    shape = _merged_shape(shape, largest)
    return 2 * size + 2 * sum(d * d for d in shape if len(shape) > 1 and 1 < d <= largest)


def _merged_shape(shape: tuple[int, ...], largest: int) -> tuple[int, ...]:
    """The shape that SOAP sees: dimensions but the first merged, the last ones first, up to the largest."""
    merged: list[int] = []
    product = 1
    for d in reversed(shape[1:]):
        if product * d <= largest:
            product *= d
        elif product > 1:
            merged.append(product)
            product = d
        else:
            merged.append(d)
    merged += [product] if product > 1 else []
    return (*shape[:1], *reversed(merged))


def _remedy(memory: Memory, recomputed: Affine, usable: float, training: TrainingConfig) -> tuple[str, float]:
    """What makes a batch fit, nothing if it does, and the work of the first way over that of a plain step."""
    if memory.total <= usable:
        return "", RECOMPUTE if training.recompute else 1.0
    if memory.resident + memory.working > usable:
        return f"another optimiser than {training.optimizer.name}, or a smaller network", 1.0
    most, saving = (
        _largest_batch(kind, usable - memory.resident) for kind in (memory.activations, recomputed)
    )
    ways = []
    if most:
        gpus = math.ceil(training.batch_size / (most * training.accumulate))
        ways += [f"{math.ceil(memory.share / most)} micro-batches", f"{gpus} GPUs"]
    if saving >= memory.samples:
        ways.append("recomputed blocks")
    elif saving and not most:
        ways.append(f"recomputed blocks in {math.ceil(memory.share / saving)} micro-batches")
    if not ways:
        return "a sample does not fit a GPU, even with recomputed blocks", RECOMPUTE
    return _join_with_or(ways), 1.0 if most and not training.recompute else RECOMPUTE


def _join_with_or(ways: list[str]) -> str:
    return " or ".join([", ".join(ways[:-1]), ways[-1]] if len(ways) > 1 else ways)


def _largest_batch(activations: Affine, usable: float) -> int:
    """The largest batch whose activations fit."""
    return max(0, math.floor((usable - activations.fixed) / activations.per_sample))
