r"""What a node of 8 GPUs must read in the paper's trainings, against what one core delivers here.

The cost model gives the seconds of a step, and with them the samples that the 8 GPUs of a node take. A core's
bytes per second are measured through the stream that feeds training, on files that are in memory: what is
left is the work of the processor. Whether GPUs wait is simulated: `n` threads of a worker make batches of `p`
seconds each, at most `n + 2` of them ahead, while steps take `s`; both vary from batch to batch. Without
variation a step waits for the share

    max(0, 1 - n s / p)
"""

import dataclasses
import functools
import heapq
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.configs import ReadingBenchmark
from benchmarks.datasets import PER_FILE, write_latents, write_well
from benchmarks.paper import MODELS, Trained
from benchmarks.timing import describe_machine

from lola.data.description import EULER
from lola.data.latents import LatentWindows
from lola.data.transforms import Standardisation
from lola.data.well.splits import open_split
from lola.data.well.windows import WellWindows
from lola.training.buffers import WindowSource
from lola.training.cost import estimate_cost
from lola.training.counting import count_step
from lola.training.order import OrderConfig
from lola.training.peak import GPUS
from lola.training.stream import BatchStream
from lola.workflows.forecast.cluster import ClusterConfig
from lola.workflows.forecast.utilisation import utilisation

NODE = 8  # GPUs
FLOAT = 4
LATENTS = (51, 64, 16, 16)  # of a trajectory
BATCH = 32  # windows of latents: those of a GPU
SPREAD = 0.3  # deviation of the logarithm of the seconds of steps and batches
STEPS = 2000  # that are simulated


def run_reading_benchmark(config: ReadingBenchmark, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure a core, and compare it with what every training of the paper takes.

    Returns:
        JSON values: `machine`, `source` of the step times, `core` (bytes per second by what is read), and
        `trainings`.
    """
    cluster = ClusterConfig(gpus=NODE, kind=config.kind)
    used = utilisation(cluster)
    core = measure_core(config, progress)
    trainings = {}
    for name, trained in MODELS.items():
        progress(name)
        share = used.of("emulator" if "window" in trained.sizes else "autoencoder")
        seconds = step_seconds(trained, config.kind, share)
        rate = core["states" if trained.shape[1] == 1 else "latents" if "c64" in name else "windows"]
        trainings[name] = dataclasses.asdict(Demand.of(trained, seconds, rate))
    return {
        "kind": "reading",
        "machine": describe_machine(),
        "source": f"{config.kind}, {used}",
        "core": core,
        "trainings": trainings,
    }


def measure_core(config: ReadingBenchmark, progress: Callable[[str], None]) -> dict[str, float]:
    """Bytes of samples per second of one core's computing, by what is read."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        progress("writing data")
        write_well(root, EULER, config.gigabytes, config.steps, config.cells, "train")
        split = open_split(root, EULER, "train")
        latents = write_latents(root / "latents", config.trajectories, LATENTS)
        sources: dict[str, WindowSource] = {
            "states": WellWindows(split, Standardisation(EULER), 1),
            "windows": WellWindows(split, Standardisation(EULER), config.window, EULER.stride),
            "latents": LatentWindows(latents, config.window, EULER.stride),
        }
        rates = {}
        for name, source in sources.items():
            progress(name)
            states = config.trajectories * LATENTS[0] if name == "latents" else PER_FILE * config.steps
            batch_size = BATCH if name == "latents" else config.batch_size
            rates[name] = bytes_per_second(source, batch_size, states, config.rounds)
        return rates


def bytes_per_second(source: WindowSource, batch_size: int, states: int, rounds: int) -> float:
    """Bytes of batches per second of this process' computing, after a first pass.

    Arguments:
        states: Those of the source, of which a quarter fits into the memory that the order may use.
    """
    order = OrderConfig(memory=states * source.state_bytes / 4 / 1e9)
    stream = BatchStream(source, seed=0, batch_size=batch_size, order=order)
    epoch = max(1, len(source.numbering) // batch_size)
    batches = stream.batches(0, 2**40)
    started, size = 0.0, 0
    for number in range((1 + rounds) * epoch):
        if number == epoch:
            started, size = time.process_time(), 0
        batch, _ = next(batches)
        size += batch.states.nbytes
    return size / (time.process_time() - started)


def step_seconds(trained: Trained, kind: str, share: float) -> float:
    """Seconds of a step by the cost model, at a fraction of a GPU's peak."""
    build = functools.partial(trained.model.build, **trained.sizes)
    counts = count_step(build, trained.shape, trained.sizes.get("parameters", 0), trained.training.precision)
    hardware = GPUS[kind].replace(utilisation=share)
    return estimate_cost(counts, trained.training, 0.0, hardware).seconds


@dataclasses.dataclass(frozen=True)
class Demand:
    """What a training takes from a node, and what it gets.

    Arguments:
        step: Seconds of a step.
        samples: Samples per second of a node's GPUs.
        bytes: Bytes per second of these.
        cores: Cores of a node that must work all the time.
        waiting: The share of time that GPUs wait.
    """

    step: float
    samples: float
    bytes: float
    cores: float
    waiting: float

    @classmethod
    def of(cls, trained: Trained, step: float, core: float) -> "Demand":
        """That of a training whose workers have the CPUs of the preset, at a core's bytes per second."""
        training = trained.training
        samples = NODE * training.batch_size / training.most_workers / step
        size = FLOAT * math.prod(trained.shape)
        batch = size * training.batch_size / training.most_workers / core
        waiting = share_waiting(step, batch, training.cpus, STEPS, SPREAD)
        return cls(step, samples, samples * size, samples * size / core, waiting)


def share_waiting(step: float, batch: float, threads: int, steps: int, spread: float = 0.0) -> float:
    """The share of time that steps wait for batches, which threads make at most `threads + 2` ahead.

    Arguments:
        step, batch: Mean seconds of a step, and of a batch on one thread.
        spread: Deviation of the logarithm of both.
    """
    rng = np.random.default_rng(0)
    varied = np.exp(spread * rng.standard_normal((2, steps)) - spread**2 / 2)
    free, taken, ready = [0.0] * threads, [0.0] * steps, 0.0
    now = waited = 0.0
    for i in range(steps):
        asked = taken[i - threads - 2] if i >= threads + 2 else 0.0
        ready = max(heapq.heappop(free), asked) + batch * float(varied[0, i])
        heapq.heappush(free, ready)
        waited += max(0.0, ready - now)
        now = taken[i] = max(now, ready)
        now += step * float(varied[1, i])
    return waited / now


def reading_table(result: dict[str, Any]) -> str:
    """Each training's demand of a node, and the share of time that its GPUs wait."""
    lines = [
        "| training | a step | samples/s of a node | GB/s | cores busy | waiting |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in result["trainings"].items():
        cells = (
            f"{1e3 * found['step']:.3g} ms",
            f"{found['samples']:,.4g}",
            f"{found['bytes'] / 1e9:.3g}",
            f"{found['cores']:.3g}",
            f"{found['waiting']:.2%}",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    core = ", ".join(f"{name} {rate / 1e9:.3g} GB/s" for name, rate in result["core"].items())
    note = f"Steps by the cost model: {result['source']}. A core of this machine delivers: {core}."
    return "\n".join([*lines, "", note])
