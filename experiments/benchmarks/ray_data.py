"""How fast Ray moves data: blocks through Ray Data, and the encoding of a cache from end to end."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray.data
import torch
from benchmarks.datasets import write_well

from lola.data.description import get_system
from lola.data.transforms import Standardisation
from lola.data.well.datasets import Datasets
from lola.data.well.simulation_files import simulation_files
from lola.data.well.splits import WellSplit, open_split
from lola.distributed.cluster.connection import configure_ray_data, connect
from lola.distributed.jobs.datasource import WellDatasource
from lola.distributed.jobs.encode import encode
from lola.emulation.cache_config import CacheConfig
from lola.emulation.emulator import load_autoencoder
from lola.models.autoencoder_config import AutoencoderConfig
from lola.storage.stages import WEIGHTS, Stage, atomic_path
from lola.training.checkpoint import save_weights
from lola.training.precision import precision

STATES = 16  # of a block


def time_ray(
    system_name: str, gigabytes: float, steps: int, cells: int, rounds: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Bytes per second of blocks that Ray Data hands to this process, and states encoded per second."""
    connect()
    configure_ray_data()
    system = get_system(system_name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("train", "valid", "test"):
            write_well(root / "well", system, gigabytes if name == "train" else 0.0, steps, cells, name)
        progress("blocks of Ray Data")
        split = open_split(root / "well", system, "train")
        result: dict[str, Any] = {"blocks": [_stream(split) for _ in range(rounds)]}
        progress("encoding")
        result["encoding"] = _encode(root, system_name)
    return result


def _stream(split: WellSplit) -> float:
    """Bytes per second of one epoch's blocks, in order, as arrays of this process."""
    started, total = time.perf_counter(), 0
    blocks = ray.data.read_datasource(WellDatasource(dict(enumerate(simulation_files(split))), STATES))
    for batch in blocks.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2):
        states = batch.column("states").combine_chunks().to_numpy_ndarray()  # type: ignore[union-attr]
        total += np.array(states).nbytes
    return total / (time.perf_counter() - started)


def _encode(root: Path, system: str) -> dict[str, float]:
    """States per second of an encoder of 64 x 64 cells: bare, and as a stage."""
    model = AutoencoderConfig(channels=(64, 96, 128), blocks=(1, 1, 1), patch_size=4, dropout=0.0)
    physics = get_system(system)
    sizes = {"channels": len(physics.channels), "spatial": physics.dimensions}
    config = CacheConfig(precision="bfloat16")
    stage = Stage(root=root, kind="autoencoders", system=system, what="noise", config=model, inputs={})
    with atomic_path(stage.folder / WEIGHTS) as tmp_path:
        save_weights(tmp_path, model.build(**sizes))
    stage.commit(model={"type": type(model).__name__, **model.to_json()}, sizes=sizes)
    cache = Stage(root=root, kind="latents", system=system, what="noise", config=config, inputs={})
    cache.folder.mkdir(parents=True)
    splits = [open_split(root / "well", physics, name) for name in ("train", "valid", "test")]
    states = sum(len(split.trajectories) * split.steps for split in splits)
    started = time.perf_counter()
    encode(cache, stage.folder, Datasets(root / "well"), config)
    whole = states / (time.perf_counter() - started)
    network = load_autoencoder(stage.folder).eval()
    block = min(config.block, splits[0].steps)
    x = Standardisation(physics).forward(splits[0].read(0, 0, block)).movedim(1, 0).contiguous()
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        with torch.inference_mode(), precision(config.precision, torch.device("cpu")):
            network.encode(x)
        seconds.append(time.perf_counter() - started)
    return {"states": states, "end to end": whole, "bare": block / float(np.median(seconds))}
