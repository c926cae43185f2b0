"""A finished sweep of the paper's size with made-up values, and the report of it.

    python paper_size.py make ROOT SYSTEM      writes the evaluations of the `paper` preset
    python paper_size.py report ROOT SYSTEM    writes their report, and prints what that took as JSON

The simulations' files and the kept states are sparse: of each there are a few states.
"""

import dataclasses
import functools
import json
import resource
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lola.data.description import get_system
from lola.data.systems import System
from lola.data.well.writer import create_fields, write_layout
from lola.distributed.jobs.evaluate import EXAMPLE, MOMENTS
from lola.distributed.trials import Trial
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.ensemble import RANKS, score_ensemble
from lola.evaluation.scores.intervals import BINNED, SPREAD_BINS
from lola.evaluation.scores.quadrature import GridAxis
from lola.evaluation.scores.rows import KEYS, METRICS_SCHEMA, PARQUET, PLACE, ROWS, SPECTRA_SCHEMA
from lola.evaluation.scores.spectra import Binning
from lola.evaluation.trajectory import choose_parts
from lola.workflows import presets
from lola.workflows.plan import SweepPlan
from lola.workflows.sweep_report import report_sweep

SPECTRA = ("power_truth", "power_prediction", "coherence")
CONSTANTS = {"euler": ("gamma",), "rayleigh_benard": ("Rayleigh", "Prandtl")}
TARGETS = ("truth", "autoencoded")
ENSEMBLES = ("diffusion", "climatology")


def write_well(root: Path, system: System) -> None:
    """Files of the published grid and steps: of test trajectories enough to be scored, one of each else."""
    published = system.published
    axes = {name: np.arange(size) / size for name, size in zip("xyz", published.grid)}  # noqa: B905
    names = CONSTANTS.get(system.name, ("rho0", "T0", "Z"))
    for dataset in system.datasets:
        for split, count in (("train", 1), ("valid", 1), ("test", 64 // len(system.datasets))):
            path = root / dataset / "data" / split / f"{dataset}.hdf5"
            path.parent.mkdir(parents=True)
            with h5py.File(path, "w") as file:
                boundary = np.ones((system.dimensions, 2), int)
                times = np.linspace(0, 1, published.steps)
                write_layout(file, dataset, count, times, axes, dict.fromkeys(names, 1.4), boundary)
                orders = {field.name: field.order for field in system.fields}
                create_fields(file, count, orders, (published.steps, *published.grid))


def fill_well(plan: SweepPlan) -> None:
    """Values in some states of the trajectory that is shown."""
    index = choose_parts(plan.splits["test"], plan.config.evaluation).trajectories[0]
    trajectory = plan.splits["test"].trajectories[index]
    rng = np.random.default_rng(0)
    with h5py.File(trajectory.file, "r+") as file:
        number = int(trajectory.id.rpartition("#")[2])
        for field in plan.system.fields:
            array = file[f"t{field.order}_fields/{field.name}"]
            for step in range(0, plan.splits["test"].steps, 12):
                array[number, step] = rng.uniform(1, 2, array.shape[2:]).astype("f4")


def lead_times(plan: SweepPlan, config: EvaluationConfig, start: int) -> np.ndarray:
    """The lead times of a trajectory from a start state."""
    count = len(range(start, plan.splits["test"].steps, config.stride)) - config.context
    return config.stride * np.arange(1, count + 1)


@functools.cache
def metrics_of(ensemble: bool) -> tuple[str, ...]:
    """The metrics that an evaluation of an ensemble, or of a single member, has."""
    found, _ = score_ensemble(
        {"u": torch.rand(1, 1, 16, 16)}, torch.rand(1 + ensemble, 1, 1, 16, 16), spatial=2
    )
    of_times = ("increments", "autocorrelation", "stability", "anomaly_correlation", "valid")
    return (*found["u"].metrics, *of_times)


def rows_of(keys: dict, axes: dict[str, list]) -> dict[str, np.ndarray | pa.Array]:
    """Key columns of rows, one for each combination along some axes."""
    numbers = np.indices([len(values) for values in axes.values()], np.int32).reshape(len(axes), -1)
    columns = {}
    for field in (*KEYS, *(pa.field(*each) for each in PLACE)):
        index, values = np.zeros(numbers.shape[1], np.int32), [keys.get(field.name)]
        if field.name in axes:
            index, values = numbers[list(axes).index(field.name)], axes[field.name]
        if pa.types.is_dictionary(field.type):
            columns[field.name] = pa.DictionaryArray.from_arrays(index, list(map(str, values)))
        else:
            columns[field.name] = np.asarray(values)[index]
    return columns


def tables_of(plan: SweepPlan, trial: Trial, rng: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """Metrics and spectra of an evaluation, of as many rows and bins as it would have."""
    step = trial.steps[0]
    config, tags = step.stage.config, step.tags
    members = config.members if tags["model"] in ENSEMBLES else 1
    keys = {
        "system": plan.system.name,
        "dataset": plan.data.fingerprint,
        "fingerprint": step.stage.fingerprint,
    }
    keys |= {name: tags[name] for name in ("model", "space", "sampler", "solver_steps", "context")}
    keys |= {"compression": float(tags["compression"]), "overlap": config.overlap, "training_seed": 0}
    keys |= {"members": members, "guidance": ""}
    axes = (GridAxis(),) * plan.system.dimensions
    edges = Binning.of(torch.zeros(plan.splits["test"].grid), axes).edges.double().numpy()
    names = trajectories_of(plan, config)
    targets = TARGETS if config.subject == "emulator" and tags["space"] == "latent" else TARGETS[:1]
    metrics, spectra = [], []
    for start in config.starts:
        axes = {"target": targets, "trajectory": names, "field": plan.system.channels}
        axes |= {"lead_time": lead_times(plan, config, start)}
        scalar = rows_of(keys | {"start": start}, axes | {"metric": metrics_of(members > 1)})
        scalar["value"] = rng.lognormal(-1, 0.5, len(scalar["start"]))
        metrics.append(pa.table(scalar, schema=METRICS_SCHEMA))
        of_ensembles = {RANKS: members + 1} | dict.fromkeys(BINNED, SPREAD_BINS)
        for metric in (*SPECTRA, *(of_ensembles if members > 1 else ())):
            bins, first, width = len(edges), edges[0], edges[0]
            if metric in of_ensembles:
                bins, first, width = of_ensembles[metric], 0.0, 1.0
            rows = rows_of(keys | {"start": start}, axes | {"metric": [metric]})
            count = len(rows["start"])
            values = rng.random(count * bins, np.float32) + 0.1
            rows |= {"coordinate": np.full(count, first), "step": np.full(count, width)}
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * bins)
            rows["values"] = pa.ListArray.from_arrays(offsets, values)
            spectra.append(pa.table(rows, schema=SPECTRA_SCHEMA))
    return pa.concat_tables(metrics), pa.concat_tables(spectra)


def trajectories_of(plan: SweepPlan, config: EvaluationConfig) -> list[str]:
    """The trajectories that are scored."""
    return [
        plan.splits["test"].trajectories[i].id for i in choose_parts(plan.splits["test"], config).trajectories
    ]


def keep_states(plan: SweepPlan, trial: Trial) -> None:
    """The states of the first trajectory, sparse."""
    stage, config = trial.steps[0].stage, trial.steps[0].stage.config
    ensemble = trial.steps[0].tags["model"] in ENSEMBLES
    states = (
        len(plan.system.channels),
        len(lead_times(plan, config, config.starts[0])),
        *plan.splits["test"].grid,
    )
    for name, count in ((EXAMPLE, 1 + ensemble), (MOMENTS, 2 * ensemble)):
        if count:
            array = np.lib.format.open_memmap(stage.folder / name, "w+", "f4", (count, *states))
            array[:, :, ::6] = np.linspace(1, 2, plan.splits["test"].grid[-1], dtype="f4")


def make(root: Path, plan: SweepPlan) -> dict:
    """Write every evaluation of a sweep; returns what there is."""
    rng = np.random.default_rng(0)
    made = {"evaluations": 0, "rows": 0, "numbers": 0}
    for stage in (step.stage for trial in plan.trials for step in trial.steps):
        stage.folder.mkdir(parents=True)
        if stage.kind != "evaluations":  # of models and caches, reports read what their manifests count
            stage.commit(metrics={}, splits={})
    for trial in plan.evaluations:
        stage = trial.steps[0].stage
        for name, table in zip(("metrics", "spectra"), tables_of(plan, trial, rng), strict=True):
            pq.write_table(table, stage.folder / f"{name}.parquet", row_group_size=ROWS, **PARQUET)
            made["rows"] += len(table)
            lists = name == "spectra"
            made["numbers"] += sum(len(c.flatten()) for c in table["values"].chunks) if lists else len(table)
        if stage.config.context == plan.config.evaluation.context:
            keep_states(plan, trial)
        stage.commit(seconds_per_state=0.1, trajectories=trajectories_of(plan, stage.config))
        made["evaluations"] += 1
    made["bytes"] = sum(path.stat().st_size for path in root.glob("evaluations/*/*.parquet"))
    return made


def report(plan: SweepPlan) -> dict:
    """Write the report; returns its time, and the process's memory."""
    began, cpu = time.perf_counter(), time.process_time()
    page = report_sweep(plan)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "page_bytes": page.stat().st_size,
        "files": {path.name: path.stat().st_size for path in page.parent.glob("*.parquet")},
    }


def main(what: str, root: Path, name: str) -> None:
    system = get_system(name)
    if what == "make":
        write_well(root / "well", system)
    config = dataclasses.replace(presets.paper(name), storage=str(root))
    plan = SweepPlan(config, root, root / "well")
    if what == "make":
        fill_well(plan)
        plan = SweepPlan(config, root, root / "well")  # which its files are part of
    print(json.dumps(make(root, plan) if what == "make" else report(plan)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
