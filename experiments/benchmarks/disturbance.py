"""What a training run loses when its workers and nodes come and go, measured on nodes of one machine.

Each scenario trains the same small autoencoder on a cluster of its own, whose nodes fit one worker each, and
disturbs it after a third of its steps. Workers log every step, which shows

    steps lost     steps that were done and done again, from the last checkpoint
    seconds lost   from the last step before workers stopped to the first one of those that follow
    deviation      of the validation losses, and of the final weights, from those of an undisturbed run of
                   one worker: the largest difference over the largest value
"""

import contextlib
import functools
import itertools
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
import ray.train
from benchmarks.configs import DisturbanceConfig
from benchmarks.datasets import write_well
from ray.cluster_utils import Cluster
from safetensors.torch import load_file

from lola.core.errors import ClusterError, LolaError
from lola.core.seeding import seed_process
from lola.data.description import EULER
from lola.data.transforms import Standardisation
from lola.data.well.datasets import Datasets
from lola.data.well.windows import WellWindows
from lola.distributed.cluster.connection import SETTINGS
from lola.distributed.jobs.train import run_training
from lola.distributed.jobs.worker import Setup, TrainingRun
from lola.models.autoencoder_config import AutoencoderConfig
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath, local_copy
from lola.storage.stages import WEIGHTS, Stage, output_folder
from lola.training.config import TrainingConfig
from lola.training.loop import train
from lola.workflows.studies.optimizer_report import read_curve

QUICK = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}
"""How often Ray Train polls here; a cluster's defaults are slower."""


def measure_disturbances(
    config: DisturbanceConfig, root: Path, log: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run the scenarios; returns the rows of the table.

    Arguments:
        root: An empty folder.
    """
    # A temporary folder of its own: other programs that start Ray must not find this cluster.
    os.environ.update(SETTINGS | QUICK | {"RAY_TMPDIR": str(root)})
    for split in ("train", "valid"):
        write_well(root / "well", EULER, 0.0, 21, 16, split)
    alone, steps = _stage(root, "undisturbed")
    _train_alone(_run(alone, root, steps, config))
    rows = []
    for scenario in config.scenarios:
        stage, steps = _stage(root, scenario)
        with _nodes(1 if scenario == "node gained" else 2) as cluster, ThreadPoolExecutor(1) as thread:
            training = thread.submit(run_training, _run(stage, root, steps, config))
            _disturb(scenario, cluster, training, steps, config)
            training.result()
        rows.append({"scenario": scenario} | _losses(steps) | _deviation(stage.folder, alone.folder))
        log(json.dumps(rows[-1]))
    return rows


def _train_alone(run: TrainingRun) -> None:
    """Train by the loop alone, in this process, and keep the curve and the weights."""
    folder = run.stage.folder
    seed_process(run.training.seed, "weights")
    setup = run.setup()

    def report(step: int, metrics: dict[str, float], save: Callable[[Path], None]) -> None:
        EventLog(folder).metrics(step, metrics)
        with output_folder(folder) as local:
            save(local)

    train(setup.model, run.training, setup.training, setup.validation, report=report)


def disturbance_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| scenario | workers | steps lost | seconds lost | deviation of the curve | of the weights |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['scenario']} | {', '.join(map(str, row['workers']))} | {row['steps lost']} | "
        f"{row['seconds lost']:.1f} | {row['curve']:.1e} | {row['weights']:.1e} |"
        for row in rows
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def _nodes(count: int) -> Iterator[Cluster]:
    """A cluster of a head without CPUs, and nodes with one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def _stage(root: Path, scenario: str) -> tuple[Stage, Path]:
    """The stage of a scenario's training, and the log of its steps."""
    what = scenario.replace(" ", "_")
    model = AutoencoderConfig(channels=(8, 16), blocks=(1, 1), patch_size=2, dropout=0.0)
    stage = Stage(root=root, kind="autoencoders", system="euler", what=what, config=model, inputs={})
    stage.folder.mkdir(parents=True)
    return stage, root / f"{what}.jsonl"


def _run(stage: Stage, root: Path, log: Path, config: DisturbanceConfig) -> TrainingRun:
    training = TrainingConfig(
        steps=config.steps,
        batch_size=5,  # which two workers share unevenly
        valid_samples=16,
        report_every=config.report_every,
        workers=(1, 2),
        resize_every=3.0,
    )
    assert isinstance(stage.config, AutoencoderConfig)
    sizes = {"channels": len(EULER.channels), "spatial": EULER.dimensions}
    setup = functools.partial(_watched, stage.config, sizes, Datasets(root / "well"), log, config.pace)
    return TrainingRun(stage, training, setup, stage.config, sizes)


def _watched(
    model: AutoencoderConfig, sizes: dict[str, int], datasets: Datasets, log: Path, pace: float
) -> Setup:
    """What is trained; with a loss that logs every step where Ray Train trains it."""
    training, validation = (
        WellWindows(split, Standardisation(split.system), 1, 1, None)
        for split in (datasets.open(EULER, name) for name in ("train", "valid"))
    )
    module = model.build(**sizes)
    if not ray.is_initialized():
        return Setup(module, training, validation)
    context, last = ray.train.get_context(), ray.train.get_checkpoint()
    entry = {
        "pid": os.getpid(),
        "node": ray.get_runtime_context().get_node_id(),
        "rank": context.get_world_rank(),
        "workers": context.get_world_size(),
        "step": int(last.path[-8:]) if last else 0,
    }
    loss = module.loss

    def logged(*arguments: Any) -> Any:
        if module.training:
            time.sleep(pace)
            entry["step"] += 1
            with log.open("a") as file:
                file.write(json.dumps(entry | {"time": time.time()}, allow_nan=False) + "\n")
        return loss(*arguments)

    module.loss = logged  # type: ignore[assignment, method-assign]
    return Setup(module, training, validation)


def _entries(log: Path) -> list[dict[str, Any]]:
    """The steps so far, as they were done."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _disturb(
    scenario: str, cluster: Cluster, training: "Future[None]", log: Path, config: DisturbanceConfig
) -> None:
    """Wait for a third of the steps, and do it. Nodes are added and removed by this thread."""
    while not training.done():
        entries = _entries(log)
        if entries and entries[-1]["step"] > config.steps // 3:
            break
        time.sleep(0.1)
    if training.done():
        return
    victim = next(entry for entry in reversed(entries) if entry["rank"] == entry["workers"] - 1)
    if scenario == "worker killed":
        os.kill(victim["pid"], signal.SIGKILL)
    elif scenario == "node gained":
        cluster.add_node(num_cpus=1)
    else:
        if scenario == "node preempted":
            announce(cluster, victim["node"], config.notice)
            time.sleep(config.notice)
        (node,) = (node for node in cluster.list_all_nodes() if node.node_id == victim["node"])
        cluster.remove_node(node, allow_graceful=False)


def announce(cluster: Cluster, node: str, seconds: int) -> None:
    """Announce to a cluster that a node will be taken away, as a cloud's autoscaler does."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated import autoscaler_pb2

    deadline = int((time.time() + seconds) * 1000)
    reason = autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION  # type: ignore[attr-defined]
    accepted, why = GcsClient(address=cluster.address).drain_node(node, reason, "taken away", deadline)
    if not accepted:
        raise ClusterError(f"the cluster does not take a notice of preemption of node {node} ({why})")


def _losses(log: Path) -> dict[str, Any]:
    """Numbers of workers, steps and seconds lost, and steps of all starts."""
    first = [entry for entry in _entries(log) if entry["rank"] == 0]
    steps, seconds, workers = 0, 0.0, [first[0]["workers"]]
    for before, after in itertools.pairwise(first):
        if before["pid"] != after["pid"]:
            steps += before["step"] + 1 - after["step"]
            seconds += after["time"] - before["time"]
            workers.append(after["workers"])
    return {"workers": workers, "steps lost": steps, "seconds lost": seconds}


def _deviation(folder: AnyPath, reference: AnyPath) -> dict[str, float]:
    found, expected = (
        read_curve(run).set_index("step")["valid_loss"].to_dict() for run in (folder, reference)
    )
    if found.keys() != expected.keys():
        raise LolaError(
            f"{folder} has losses of the steps {sorted(found)}, and the undisturbed run of {sorted(expected)}"
        )
    curve = max(abs(found[step] - loss) for step, loss in expected.items()) / max(expected.values())
    own, other = (load_file(local_copy(run / WEIGHTS)) for run in (folder, reference))
    largest = max(float(weight.abs().max()) for weight in other.values())
    weights = max(float((own[name] - weight).abs().max()) for name, weight in other.items()) / largest
    return {"curve": curve, "weights": weights}
