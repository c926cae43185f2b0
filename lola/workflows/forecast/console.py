"""What a sweep will take, on the console."""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lola.core.waiting import format_duration
from lola.storage.stages import resolve_storage
from lola.workflows.forecast.capacity import ClusterConfig
from lola.workflows.forecast.extent import Extent
from lola.workflows.forecast.forecast import Forecast, forecast
from lola.workflows.forecast.overheads import CLUSTER_S, REPORT_S
from lola.workflows.sweep import SweepConfig


def show_forecast(config: SweepConfig, cluster: ClusterConfig) -> None:
    """Print what a sweep will take, stage by stage and in all; nothing is computed or written.

    Raises:
        ConfigError: The storage is too small, or a stage does not fit the cluster.
    """
    root = resolve_storage(config.storage)
    cores = os.cpu_count() or 1
    found = forecast(config, cluster, root, cores)
    console = Console(width=max(Console().width, 130))
    console.print(_table(found))
    for line in _summary(found, Extent.of(config, root).origin):
        console.print(line, highlight=False)
    free = shutil.disk_usage(root).free if isinstance(root, Path) else math.inf
    if cluster.storage or not cluster.gpus:
        found.refuse(free)
    elif found.storage_bytes > free:  # planned for other machines: theirs counts, which nobody has told
        console.print(
            f"The storage root {root} has {_bytes(free)} free here, too little for these results; "
            "--cluster.storage tells what the cluster has.",
            highlight=False,
            markup=False,
        )


def _table(found: Forecast) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "stage",
        "time by",
        "at once",
        "CPUs",
        "GPUs",
        "hours",
        "CPU hours",
        "GPU hours",
        "GB",
        "GB read",
    ):
        table.add_column(
            heading, justify="left" if heading in ("stage", "time by") else "right", no_wrap=True
        )
    table.add_column("to fit")
    for work in found.works:
        table.add_row(
            work.name,
            work.source,
            str(work.parts),
            *(f"{work.takes.get(resource, 0):g}" for resource in ("cpu", "gpu")),
            _number(work.seconds / 3600),
            *(_number(work.hours(resource)) for resource in ("cpu", "gpu")),
            _number(work.stored / 1e9),
            _number(work.read / 1e9),
            work.remedy,
        )
    return table


def _summary(found: Forecast, origin: str) -> Iterator[str]:
    cluster, unit = found.cluster, "gpu" if found.capacity["gpu"] else "cpu"
    used, there, wall = found.hours(unit), found.capacity[unit], found.wall()
    yield f"Data: {origin}."
    read = sum(work.read for work in found.works)
    stored, meanwhile = found.stored, found.storage_bytes - found.stored
    yield f"Storage: {_bytes(stored)} of results, {_bytes(meanwhile)} more meanwhile; read: {_bytes(read)}."
    name = f"{there:g} x {cluster.kind if cluster.gpus else 'CPU'}"
    busy = used * 3600 / (there * wall) if wall else 0.0
    yield f"{unit.upper()} hours: {used:.4g}. On {name}: {format_duration(wall)}, {busy:.0%} of them busy."
    parts = [f"starting {format_duration(CLUSTER_S)}", f"the report {format_duration(REPORT_S)}"]
    parts += [f"simulating {format_duration(found.simulating)}"] if found.simulating else []
    yield f"Of that, before and after the stages: {', '.join(parts)}."
    widest = max(work.takes.get("gpu", 0) for work in found.works)
    others = [n for n in (there // 2, 2 * there, 4 * there) if cluster.gpus and n >= widest]
    times = [f"on {n:g}: {format_duration(found.wall(n))}" for n in others]
    yield "; ".join([*times, f"on however many: {format_duration(found.path)}"]).capitalize() + "."
    price = cluster.gpu_price if cluster.gpus else cluster.cpu_price
    if price:
        kept = price * there * wall / 3600
        yield f"Cost: {found.cost:,.2f} for the hours in use, {kept:,.2f} for all {there:g} to the end."
    if cluster.storage_price:
        yield f"Storage for a month: {cluster.storage_price * stored / 1e12:,.2f}."
    if any(work.source == "peak" for work in found.works):
        yield (
            f"Times by peak assume that {cluster.utilisation:.0%} of it is reached, and are lower bounds: "
            "element-wise operations, the optimiser, communication and scoring are not counted."
        )
    if not cluster.gpus:
        yield "The peak of CPUs is that of a matrix product on a core of this machine."


def _number(value: float) -> str:
    return f"{value:.3g}" if value else ""


def _bytes(value: float) -> str:
    return f"{value / 1e12:.3g} TB" if value >= 1e12 else f"{value / 1e9:.3g} GB"
