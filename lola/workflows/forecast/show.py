"""What a plan will take, on the console."""

import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from lola.core.waiting import format_duration
from lola.storage.stages import Stage, resolve_storage, well_folder
from lola.training.config import TrainingConfig
from lola.workflows.base_plan import BasePlan, open_plan
from lola.workflows.forecast.estimates import estimated_throughput, forecast
from lola.workflows.forecast.forecast import Forecast, ModelCost
from lola.workflows.forecast.overheads import CLUSTER_S
from lola.workflows.forecast.utilisation import utilisation
from lola.workflows.plan import SweepPlan
from lola.workflows.sweep import SweepConfig
from lola.workflows.wall_clock import with_steps
from lola.workflows.workflow_config import WorkflowConfig

P = TypeVar("P", bound=BasePlan)
WIDTH = 140  # characters that the tables need


def show_sweep(config: SweepConfig, choose: Callable[[SweepPlan], Iterable[Stage]] | None = None) -> None:
    """Print what a sweep will take, or those of its stages that are chosen, as `show_plan` does."""
    show_plan(config, SweepPlan, (lambda plan: plan.towards(*choose(plan))) if choose else lambda plan: plan)


def show_plan(config: WorkflowConfig, kind: type[P], part: Callable[[P], P] = lambda plan: plan) -> None:
    """Print what a plan will take on `config.cluster`, model by model, stage by stage and in all.

    Nothing is computed or written, and the data need not exist.

    Arguments:
        part: Takes the part of the plan that is shown.

    Raises:
        ConfigError: The storage is too small, or a stage does not fit the cluster.
    """
    root, cluster = resolve_storage(config.storage), config.cluster
    well = well_folder(root, config.well)
    plan = with_steps(lambda: open_plan(kind, config, root, well), part, estimated_throughput(cluster))
    console = Console(width=max(Console().width, WIDTH))
    found = forecast(plan, cluster, os.cpu_count() or 1, console.print)
    if found.models:
        console.print(_models(found))
        console.print()
    console.print(_finished_stages(found) if found.finished else _stages(found))
    lines = _finished_summary(found) if found.finished else _summary(found, plan.data.origin)
    for line in (*lines, *_timed(found), *([plan.remark] if plan.remark else [])):
        console.print(line, highlight=False, markup=False)
    if found.finished:
        return
    free = shutil.disk_usage(root).free if isinstance(root, Path) else math.inf
    if cluster.storage or not cluster.gpus:
        found.require_storage(free)
    elif found.storage_bytes > free:  # another cluster's storage counts, which is not known
        console.print(
            f"The storage root {root} has {_bytes(free)} free here, too little for these results; give the "
            "cluster's storage with --cluster.storage.",
            highlight=False,
            markup=False,
        )


def _new_table(*headings: str) -> Table:
    """An empty table: text to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        text = heading in ("model", "stage", "time by", "fits")
        table.add_column(heading, justify="left" if text else "right", no_wrap=heading != "fits")
    return table


def _models(found: Forecast) -> Table:
    table = _new_table(
        "model", "million", "steps", "TFLOP/step", "workers", "GB/worker", "s/step", "read MB/s", "fits"
    )
    for model in found.models:
        cost = model.estimate
        table.add_row(
            model.name,
            f"{cost.parameters / 1e6:.1f}",
            f"{model.training.steps:,}",
            f"{cost.flops / 1e12:.4g}",
            str(model.training.most_workers),
            f"{cost.memory.total / 1e9:.1f}",
            f"{model.seconds_per_step:.3g}",
            f"{model.training.batch_size * model.shape.sample_bytes / model.seconds_per_step / 1e6:.4g}",
            f"no: {model.remedy}" if model.remedy else f"yes{_means(model.training)}",
        )
    return table


def _means(training: TrainingConfig) -> str:
    means = [f"{training.accumulate} micro-batches"] if training.accumulate > 1 else []
    means += ["recomputed blocks"] if training.recompute else []
    return ", with " + " and ".join(means) if means else ""


def _stages(found: Forecast) -> Table:
    table = _new_table(
        "stage", "time by", "at once", "CPUs", "GPUs", "hours", "CPU hours", "GPU hours", "GB", "GB read"
    )
    for stage in found.stages:
        table.add_row(
            stage.name,
            stage.source,
            str(stage.parts),
            *(f"{stage.resources.get(resource, 0):g}" for resource in ("cpu", "gpu")),
            _number(stage.seconds / 3600),
            *(_number(stage.hours(resource)) for resource in ("cpu", "gpu")),
            _number(stage.stored / 1e9),
            _number(stage.read / 1e9),
        )
    return table


def _finished_stages(found: Forecast) -> Table:
    table = _new_table("stage", "took", "CPUs", "GPUs", "GB")
    for stage in found.stages:
        table.add_row(
            stage.name,
            "" if stage.took is None else format_duration(stage.took),
            *(f"{stage.resources.get(resource, 0):g}" for resource in ("cpu", "gpu")),
            _number(stage.stored / 1e9),
        )
    return table


def _finished_summary(found: Forecast) -> Iterator[str]:
    """That nothing is left to run, and what the stages took and hold."""
    count, recorded = len(found.stages), [stage.took for stage in found.stages if stage.took is not None]
    every, they, hold = (
        (f"All {count} stages are", "They", "hold") if count > 1 else ("The stage is", "It", "holds")
    )
    report = " A run writes the report, if it does not exist." if found.reporting else ""
    yield f"{every} finished: nothing is left to run.{report}"
    if recorded:
        known = "" if len(recorded) == count else f" ({len(recorded)} have recorded their time)"
        yield f"{they} took {format_duration(sum(recorded))}{', one after another' * (count > 1)}{known}."
    yield f"{they} {hold} {_bytes(sum(stage.stored for stage in found.stages))} of results."


def _details(model: ModelCost) -> Iterator[str]:
    """What the memory and the time of one model consist of."""
    cost, memory, training = model.estimate, model.estimate.memory, model.training
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "exchange": memory.buckets,
        "average": memory.average,
        training.optimizer.name: memory.optimizer,
        "activations": memory.activations.at(memory.samples),
    }
    if memory.working > parts["activations"]:
        parts[f"the step of {training.optimizer.name}, without activations"] = memory.working
        del parts["activations"]
    shape = " x ".join(map(str, model.shape.states))
    at_once = f", {memory.samples} of them at once" if memory.samples < memory.share else ""
    gigabytes = ", ".join(f"{name} {value / 1e9:.2f}" for name, value in parts.items() if value)
    yield f"Sample: {shape} (channels, states, grid), {model.shape.sample_bytes / 1e6:.3g} MB in storage."
    workers = "1 worker" if training.most_workers == 1 else f"each of {training.most_workers} workers"
    yield f"Batch: {training.batch_size}, {memory.share} on {workers}{at_once}."
    yield f"Memory of a worker: {memory.total / 1e9:.2f} GB of {cost.usable / 1e9:.0f}: {gigabytes}."
    yield f"Step: {cost.arithmetic:.3g} s of arithmetic or {cost.traffic:.3g} s of memory traffic, if longer."


def _timed(found: Forecast) -> Iterator[str]:
    """How many steps the minutes of trainings are, once for all seeds."""
    alike: dict[tuple[float, int, bool], list[str]] = {}
    for model in found.models:
        training = model.training
        if training.minutes:
            alike.setdefault((training.minutes, training.steps, model.recorded), []).append(model.name)
    for (minutes, steps, recorded), names in alike.items():
        known = "as recorded" if recorded else "by the peak; a run measures, and records, its own number"
        yield f"{minutes:g} minutes are {steps:,} steps, {known}: {', '.join(names)}."


def _summary(found: Forecast, origin: str) -> Iterator[str]:
    cluster, unit = found.cluster, "gpu" if found.capacity["gpu"] else "cpu"
    finished = sum(stage.source == "finished" for stage in found.stages)
    used, available, wall = found.hours(unit), found.capacity[unit], found.wall()
    yield f"Data: {origin}."
    if finished:
        yield f"{finished} of {len(found.stages)} stages are finished and cost nothing."
    if len(found.models) == 1:
        yield from _details(found.models[0])
    misfits = [model.name for model in found.models if model.remedy]
    if misfits:
        memory = f"a GPU ({cluster.kind})" if cluster.gpus else "this machine"
        yield f"Too large for the memory of {memory}: {', '.join(misfits)}; see the column `fits`."
    read = sum(stage.read for stage in found.stages)
    stored, temporary = found.stored, found.storage_bytes - found.stored
    yield f"Storage: {_bytes(stored)} of results, {_bytes(temporary)} temporary; read: {_bytes(read)}."
    name = f"{available:g} x {cluster.kind if cluster.gpus else 'CPU'}"
    busy = used * 3600 / (available * wall) if wall else 0.0
    yield f"{unit.upper()} hours: {used:.4g}. On {name}: {format_duration(wall)}, {busy:.0%} of them busy."
    parts = {"starting": CLUSTER_S, "simulating": found.simulating, "the report": found.reporting}
    outside = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in parts.items() if seconds)
    yield f"Of that, before and after the stages: {outside}."
    widest = max(stage.resources.get("gpu", 0) for stage in found.stages)
    others = [n for n in (available // 2, 2 * available, 4 * available) if cluster.gpus and n >= widest]
    times = [f"on {n:g}: {format_duration(found.wall(n))}" for n in others]
    yield "; ".join([*times, f"on any number: {format_duration(found.critical_seconds)}"]).capitalize() + "."
    price = cluster.gpu_price if cluster.gpus else cluster.cpu_price
    if price:
        kept = price * available * wall / 3600
        yield f"Cost: {found.cost:,.2f} for the hours in use, {kept:,.2f} if all {available:g} are kept."
    if cluster.storage_price:
        yield f"Storage for a month: {cluster.storage_price * stored / 1e12:,.2f}."
    if any(stage.source == "peak" for stage in found.stages):
        reached = utilisation(cluster)
        missing = (
            "communication and scoring"
            if reached.measured
            else ("element-wise operations, the optimiser, communication and scoring")
        )
        yield f"Times by peak assume {reached} and are lower bounds: {missing} are not counted."
    if not cluster.gpus:
        yield "The peak of CPUs is that of a matrix product on a core of this machine."


def _number(value: float) -> str:
    return f"{value:.3g}" if value else ""


def _bytes(value: float) -> str:
    return f"{value / 1e12:.3g} TB" if value >= 1e12 else f"{value / 1e9:.3g} GB"
