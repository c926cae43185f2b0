"""A small dataset in The Well's format, smooth and random."""

from pathlib import Path

import numpy as np

from lola.data.systems import Boundary
from lola.data.well.writer import write_well_file
from lola.simulate.euler import DATASETS

STEPS, SIZE = 21, 16


def write_dataset(root: Path, splits=("train", "valid", "test"), size=SIZE, steps=STEPS, count=2) -> Path:
    """Write travelling waves under the names of the Euler datasets: one file per split and boundary."""
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(centres, centres, indexing="ij")
    for boundary, dataset in DATASETS.items():
        for split in splits:
            rng = np.random.default_rng(len(dataset) * 10 + len(split))

            def waves(rng=rng):
                for _ in range(count):
                    speed, phase = rng.normal(size=2), rng.uniform(size=4)
                    time = np.linspace(0, 1, steps)[:, None, None]
                    wave = [
                        np.sin(2 * np.pi * (x + y + speed[0] * time + shift)).astype("float32")
                        for shift in phase
                    ]
                    yield {
                        "energy": 2 + wave[0],
                        "density": 1 + wave[1] / 2,
                        "pressure": 1 + wave[2] / 2,
                        "momentum": np.stack([wave[3], -wave[3]], axis=-1),
                    }

            path = root / dataset / "data" / split / f"{dataset}_gamma_1.4.hdf5"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_well_file(
                path,
                dataset=dataset,
                count=count,
                trajectories=waves(),
                times=np.linspace(0, 1, steps),
                axes={"x": centres, "y": centres},
                scalars={"gamma": 1.4},
                boundary=np.full((2, 2), Boundary[boundary.upper()]),
            )
    return root


def write_mixed_dataset(root: Path, steps=(STEPS, 9)) -> Path:
    """A dataset with two files per split, `b_long.hdf5` and `a_short.hdf5`, of 21 and of 9 states."""
    for name, count in zip(("b_long", "a_short"), steps, strict=True):
        part = write_dataset(root / name, steps=count)
        for file in part.glob("*openBC/data/*/*.hdf5"):
            target = root / "well" / file.relative_to(part).with_name(f"{name}.hdf5")
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
    return root / "well"
