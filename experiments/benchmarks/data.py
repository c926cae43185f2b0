r"""How fast data reach training.

    fields    bytes per second of long reads into a buffer, and of the stream of standardised states, against
              h5py that reads the same arrays one after another and drops each, so that none leaves the
              processor's cache, or keeps them
    latents   windows per second of the stream, against a torch DataLoader over random slices of HDF5
    wait      the share of a training step that is spent waiting for data, with a small network
    cache     bytes of a latent cache against those of its numbers

Everything is read before it is timed, so that files come from the page cache: what is measured is the work of
the processor, which bounds the speed wherever storage is fast.
"""

import functools
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from benchmarks.configs import DataBenchmark
from benchmarks.datasets import copy_to_hdf5, write_latents, write_well
from benchmarks.loader import Slices, plain_batches
from benchmarks.timing import describe_machine, interleave, ratio

from lola.data.description import get_system
from lola.data.latents import LatentSplit, LatentWindows
from lola.data.transforms import Standardisation
from lola.data.well.splits import WellSplit, open_split
from lola.data.well.windows import WellWindows
from lola.training.loop import train
from lola.training.order import OrderConfig
from lola.training.stream import BatchStream

LATENTS = {"demo": (101, 32, 4, 4), "paper": (101, 64, 16, 16)}


def run_data_benchmark(config: DataBenchmark, progress: Callable[[str], None]) -> dict[str, Any]:
    """Time everything.

    Returns:
        JSON values: `machine`, and a list of seconds or rates for each variant of each part.
    """
    result: dict[str, Any] = {"kind": "data", "machine": describe_machine()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        progress("fields")
        system = get_system(config.system)
        write_well(root / "well", system, config.gigabytes, config.steps, config.cells, "train")
        result["fields"] = time_fields(open_split(root / "well", system, "train"), config)
        for name, shape in LATENTS.items():
            progress(f"latents {name}")
            count = max(16, int(config.gigabytes * 1e9 / 4 / np.prod(shape)))
            split = write_latents(root / name, count, shape)
            result[f"latents {name}"] = time_latents(split, root / f"{name}.hdf5", config)
        progress("wait")
        result["wait"] = measure_wait(LatentSplit(root / "demo", "train"), config)
    return result


def time_fields(split: WellSplit, config: DataBenchmark) -> dict[str, Any]:
    """Seconds to read all fields of a split once."""
    windows = WellWindows(split, Standardisation(split.system), 1)
    buffer = windows.allocate(split.steps)
    files = sorted({trajectory.file for trajectory in split.trajectories})

    def plain() -> Iterator[np.ndarray]:
        for path in files:
            with h5py.File(path, "r") as file:
                for field in split.system.fields:
                    array = file[f"t{field.order}_fields/{field.name}"]
                    for i in range(len(array)):
                        yield array[i]

    def long_reads() -> None:
        for i in range(len(split.trajectories)):
            windows.load(buffer, 0, i, 0, split.steps)

    total = len(split.trajectories) * split.steps * windows.state_bytes
    steps = len(windows) // config.batch_size
    order = OrderConfig(memory=total / 4 / 1e9)
    batches = _endless(BatchStream(windows, seed=0, batch_size=config.batch_size, order=order))
    variants = {
        "h5py": lambda: deque(plain(), maxlen=0),
        "h5py, kept": lambda: list(plain()),
        "long reads": long_reads,
        "stream of states": lambda: [next(batches) for _ in range(steps)],
    }
    return {"bytes": total, "seconds": interleave(variants, config.rounds)}


def time_latents(split: LatentSplit, copy: Path, config: DataBenchmark) -> dict[str, Any]:
    """Seconds per batch of latent windows, where memory holds all of them and where it does not."""
    copy_to_hdf5(split, copy)
    windows = LatentWindows(split, config.window, config.stride)
    total = len(split) * split.steps * windows.state_bytes
    plain = plain_batches(Slices(copy, config.window, config.stride), config.batch_size, workers=1)
    variants: dict[str, Iterator] = {"DataLoader": plain}
    for name, share in (("all in memory", 2.5), ("a quarter in memory", 0.25)):
        order = OrderConfig(memory=share * total / 1e9)
        variants[name] = _endless(BatchStream(windows, seed=0, batch_size=config.batch_size, order=order))
    epoch = len(windows) // config.batch_size
    count = {name: epoch if name != "DataLoader" else max(8, epoch // 8) for name in variants}
    calls = {name: functools.partial(_take, each, count[name]) for name, each in variants.items()}
    seconds = interleave(calls, config.rounds)
    stored = sum(path.stat().st_size for path in (split.folder / split.split).iterdir())
    return {
        "windows": config.batch_size,
        "seconds": {name: [value / count[name] for value in values] for name, values in seconds.items()},
        "bytes": {"stored": stored, "float32": 4 * len(split) * int(np.prod(split.shape))},
    }


def _take(batches: Iterator, count: int) -> None:
    for _ in range(count):
        next(batches)


def _endless(stream: BatchStream) -> Iterator:
    return stream.batches(0, 2**40)


def measure_wait(split: LatentSplit, config: DataBenchmark) -> list[float]:
    """The share of a training step spent waiting for data, in every report but the first."""
    windows = LatentWindows(split, config.window, config.stride)
    model = config.emulator.build(
        channels=split.shape[1],
        spatial=len(split.shape) - 2,
        parameters=split.parameter_count,
        window=config.window,
    )
    shares: list[float] = []
    report = lambda step, metrics, save: shares.append(metrics["train/data_wait"])  # noqa: E731
    train(model, config.training, windows, windows, report=report)
    return shares[1:]


def data_table(result: dict[str, Any]) -> str:
    lines = [
        "| part | variant | rate | unit | against the plain way |",
        "| --- | --- | ---: | --- | ---: |",
    ]
    for part, values in result.items():
        if not isinstance(values, dict) or "seconds" not in values:
            continue
        amount, unit = (
            (values["bytes"] / 1e9, "GB/s") if part == "fields" else (values.get("windows"), "windows/s")
        )
        first = next(iter(values["seconds"].values()))
        for name, seconds in values["seconds"].items():
            rate = amount / statistics.median(seconds)
            lines.append(f"| {part} | {name} | {rate:,.4g} | {unit} | {ratio(first, seconds):.2f} |")
        if "stored" in (values["bytes"] if isinstance(values.get("bytes"), dict) else {}):
            size = values["bytes"]["stored"] / values["bytes"]["float32"]
            lines.append(f"| {part} | cache's files | {size:.4f} | of its float32 | |")
    if "ray" in result:
        blocks, encoding = result["ray"]["blocks"], result["ray"]["encoding"]
        lines.append(f"| Ray Data | blocks | {statistics.median(blocks) / 1e9:,.4g} | GB/s | |")
        share = encoding["end to end"] / encoding["bare"]
        lines.append(f"| encoding | bare encoder | {encoding['bare']:,.4g} | states/s | 1.00 |")
        lines.append(
            f"| encoding | a cache's stage | {encoding['end to end']:,.4g} | states/s | {share:.2f} |"
        )
    shares = ", ".join(f"{share:.2%}" for share in result["wait"])
    return "\n".join([*lines, "", f"Share of a training step spent waiting for data, by report: {shares}."])
