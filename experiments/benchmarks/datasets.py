"""Data of noise in the platform's formats, in the sizes that timing asks for."""

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from lola.data.latent_shards import describe_shards, shard_path, write_shard
from lola.data.latents import LatentSplit, LatentTrajectory
from lola.data.systems import Boundary, System
from lola.data.well.writer import write_well_file
from lola.storage.stages import SCHEMA_VERSION

PER_FILE = 8  # trajectories


def write_well(root: Path, system: System, gigabytes: float, steps: int, cells: int, split: str) -> None:
    """A split of about a size of the system's first dataset, on a grid of as many cells along each axis."""
    dimensions = system.dimensions
    trajectory = 4 * len(system.channels) * steps * cells**dimensions
    files = max(1, round(gigabytes * 1e9 / trajectory / PER_FILE))
    folder = root / system.datasets[0] / "data" / split
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        write_well_file(
            folder / f"noise-{number:04d}.hdf5",
            dataset=system.datasets[0],
            count=PER_FILE,
            trajectories=_fields(system, steps, cells, number),
            times=np.arange(steps),
            axes={name: np.arange(cells) / cells for name in "xyz"[:dimensions]},
            scalars={"gamma": 1.4},
            boundary=np.full((dimensions, 2), Boundary.OPEN),
        )


def _fields(system: System, steps: int, cells: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Positive noise, which every transform accepts; all trajectories are shifted copies of one."""
    rng = np.random.default_rng(seed)
    grid = (cells,) * system.dimensions
    fields = {
        field.name: 0.5 + rng.random((steps, *grid, *(system.dimensions,) * field.order), np.float32)
        for field in system.fields
    }
    for shift in range(PER_FILE):
        yield {name: np.roll(values, shift, axis=0) for name, values in fields.items()}


def write_latents(folder: Path, trajectories: int, shape: tuple[int, ...]) -> LatentSplit:
    """A finished latent cache with one split, `train`, of trajectories `(L, C, *grid)`."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(-(-trajectories // PER_FILE)):
        members = range(number * PER_FILE, min((number + 1) * PER_FILE, trajectories))
        path = shard_path(folder, "train", number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_shard(
            path,
            [
                LatentTrajectory(
                    f"noise/train/noise.hdf5#{i}",
                    0,
                    rng.random(5, np.float32),
                    rng.standard_normal(shape, np.float32),
                )
                for i in members
            ],
        )
        paths.append(path)
    manifest = {"schema": SCHEMA_VERSION, "shape": list(shape), "parameters": 5}
    manifest["splits"] = {"train": describe_shards(paths)}
    (folder / "manifest.json").write_text(json.dumps(manifest, allow_nan=False))
    return LatentSplit(folder, "train")


def copy_to_hdf5(split: LatentSplit, path: Path) -> None:
    """The same latents in one contiguous array of an HDF5 file, with the parameters in another."""
    with h5py.File(path, "w") as file:
        latents = file.create_dataset("latents", (len(split), *split.shape), split.dtype)
        for i in range(len(split)):
            latents[i] = split.latents(i)
        file["parameters"] = split.parameters(np.arange(len(split))).numpy()
