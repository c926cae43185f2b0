r"""Memory while a dataset streams that is ten times as large as what the order may hold.

The resident memory of this process, less what it was before the stream began, is sampled along an epoch. It
must stay below the order's `memory` and about eight batches: three that are ready or in use, and what the one
in the making is copied to on its way. Files are read, not mapped, so that their pages in the system's cache
do not count.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from benchmarks.configs import DataBenchmark
from benchmarks.datasets import write_well
from benchmarks.timing import describe_machine
from matplotlib.figure import Figure

from lola.data.description import get_system
from lola.data.transforms import Standardisation
from lola.data.well.splits import open_split
from lola.data.well.windows import WellWindows
from lola.training.order import OrderConfig
from lola.training.stream import BatchStream

TIMES = 10  # as large as the memory
BLOCK = 8
SAMPLES = 200


def run_memory_benchmark(config: DataBenchmark, progress: Callable[[str], None]) -> dict[str, Any]:
    """Stream an epoch of fields.

    Returns:
        JSON values: `allowed` bytes of states, bytes of a `batch` and of the `dataset`, and `samples` of
        (seconds, bytes streamed, resident bytes).
    """
    system = get_system(config.system)
    with tempfile.TemporaryDirectory() as folder:
        progress("writing the dataset")
        write_well(Path(folder), system, config.gigabytes, config.steps, config.cells, "train")
        windows = WellWindows(open_split(Path(folder), system, "train"), Standardisation(system), 1)
        dataset = len(windows) * windows.state_bytes
        order = OrderConfig(block=BLOCK, memory=dataset / TIMES / 1e9)
        progress("streaming")
        samples = stream_epoch(windows, order, config.batch_size)
    return {
        "kind": "data-memory",
        "machine": describe_machine(),
        "allowed": order.memory * 1e9,
        "batch": config.batch_size * windows.state_bytes,
        "dataset": dataset,
        "samples": samples,
    }


def stream_epoch(windows: WellWindows, order: OrderConfig, batch_size: int) -> list[list[float]]:
    """Samples of (seconds, bytes streamed, resident bytes since the start) along an epoch."""
    steps = -(-len(windows) // batch_size)
    every = max(1, steps // SAMPLES)
    before, started = resident(), time.perf_counter()
    samples = [[0.0, 0.0, 0.0]]
    stream = BatchStream(windows, seed=0, batch_size=batch_size, order=order)
    for step, _ in enumerate(stream.batches(0, steps), 1):
        if step % every == 0 or step == steps:
            seconds = time.perf_counter() - started
            streamed = step * batch_size * windows.state_bytes
            samples.append([seconds, float(streamed), float(resident() - before)])
    return samples


def resident() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def write_memory(result: dict[str, Any], folder: Path) -> None:
    """Write the samples as `data-memory.csv` and `data-memory.png`."""
    samples = pd.DataFrame(result["samples"], columns=["seconds", "bytes_streamed", "resident_bytes"])
    samples.to_csv(folder / "data-memory.csv", index=False)
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    streamed = samples["bytes_streamed"] / 1e9
    axes.plot(streamed, samples["resident_bytes"] / 1e9, label="resident, less the start")
    axes.axhline(result["allowed"] / 1e9, color="black", linestyle="--", label="memory allowed to the order")
    axes.plot(streamed, streamed, color="grey", linewidth=0.8, label="all that was streamed")
    axes.set(xlabel="GB streamed", ylabel="GB", ylim=(0, 3 * result["allowed"] / 1e9))
    axes.legend()
    figure.savefig(folder / "data-memory.png", dpi=150)


def memory_table(result: dict[str, Any]) -> str:
    peak = max(sample[2] for sample in result["samples"])
    return (
        f"{result['dataset'] / 1e9:.2f} GB streamed through {result['allowed'] / 1e9:.3f} GB; "
        f"the process grew by {peak / 1e9:.3f} GB at most, a batch being {result['batch'] / 1e9:.3f} GB."
    )
