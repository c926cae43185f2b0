"""A dataset with a mask: on land, its fields are not finite or huge."""

import h5py
import numpy as np

from lola.data.description import build_system, read_description
from lola.data.well.header import infer_system
from lola.data.well.writer import write_well_file

MEAN, STD = [0.3, -0.1, 0.2, 0.0], [0.2, 1.0, 1.5, 1.0]
STEPS, GRID = 6, (4, 5)
LAND = np.zeros(GRID, bool)
LAND[:2, 1:3] = True
DESCRIPTION = """
fields:
  height: {transform: log}
  wind:
  land:
symmetries: {flips: [0]}
mask: {field: land, outside: 1}
"""


def fields(seed, land=LAND):
    """Fields that are not finite, or huge, on land."""
    generator = np.random.default_rng(seed)
    height, wind = generator.uniform(1, 2, (STEPS, *GRID)), generator.normal(size=(STEPS, *GRID, 2))
    height[:, land], wind[:, land] = np.nan, 9e36
    return {"height": height.astype("float32"), "wind": wind.astype("float32")}


def write_ocean(root, land=LAND):
    for split in ("train", "valid", "test"):
        path = root / "ocean" / "data" / split / "a.hdf5"
        path.parent.mkdir(parents=True)
        plain = {name: np.nan_to_num(values) for name, values in fields(0, land).items()}
        write_well_file(
            path,
            dataset="ocean",
            count=2,
            trajectories=[plain, plain],
            times=np.arange(STEPS),
            axes={name: np.arange(n) for name, n in zip("xy", GRID, strict=True)},
            scalars={"depth": 1.0},
            boundary=np.full((2, 2), 2),
        )
        with h5py.File(path, "r+") as file:
            for index in range(2):
                for name, values in fields(index, land).items():
                    file[f"t{values.ndim - 3}_fields/{name}"][index] = values
            group = file["t0_fields"]
            group["land"] = land.astype("float32")
            group["land"].attrs.update(dim_varying=[True] * 2, sample_varying=False, time_varying=False)
            group.attrs["field_names"] = ["height", "land"]
    return root


def system_of(root, text=DESCRIPTION, **statistics):
    inferred = infer_system(root / "ocean/data/train/a.hdf5", "ocean")
    lines = "".join(f"{key}: {value}\n" for key, value in statistics.items())
    return build_system(read_description(text + lines, "ocean.yaml"), "ocean.yaml", inferred)
