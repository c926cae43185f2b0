"""Files in The Well's layout with everything that the layout allows, on grids of one to three axes."""

from pathlib import Path

import h5py
import numpy as np

COUNT, STEPS = 3, 7
GRIDS = {1: (9,), 2: (6, 5), 3: (5, 4, 3)}


def chebyshev(n: int) -> np.ndarray:
    return np.cos(np.pi * (2 * np.arange(n)[::-1] + 1) / (2 * n)).astype(np.float32)


def write_layout(
    path: Path,
    dimensions: int,
    seed: int = 0,
    dataset: str = "anything",
    grid: tuple[int, ...] = (),
    steps: int = STEPS,
) -> None:
    """The first axis is uniform and periodic, the second Chebyshev between walls, the third open."""
    random = np.random.default_rng(seed)
    grid, names = grid or GRIDS[dimensions], ("x", "y", "z")[:dimensions]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            dataset_name=dataset, grid_type="cartesian", n_spatial_dims=dimensions, n_trajectories=COUNT
        )
        group = file.create_group("dimensions")
        group.attrs["spatial_dims"] = list(names)
        group["time"] = (
            np.linspace(0, 2, steps, dtype=np.float32) + np.arange(COUNT, dtype=np.float32)[:, None]
        )
        group["time"].attrs["sample_varying"] = True
        for k, name in enumerate(names):
            group[name] = np.linspace(0, 1, grid[k], dtype=np.float32) if k != 1 else chebyshev(grid[k])
            group[name].attrs.update(sample_varying=False, time_varying=False)
        group = file.create_group("boundary_conditions")
        for k, (name, kind) in enumerate(zip(names, ("PERIODIC", "WALL", "OPEN"), strict=False)):
            condition = group.create_group(f"{name}_{kind.lower()}")
            condition.attrs.update(associated_dims=[name], associated_fields=[], bc_type=kind)
            condition["mask"] = np.isin(np.arange(grid[k]), (0, grid[k] - 1))
        group = file.create_group("scalars")
        group.attrs["field_names"] = ["viscosity", "forcing", "seedling", "drive"]
        for name, sample, time in (
            ("viscosity", False, False),
            ("forcing", False, True),
            ("seedling", True, False),
            ("drive", True, True),
        ):
            group[name] = random.normal(size=(COUNT,) * sample + (steps,) * time)
            group[name].attrs.update(sample_varying=sample, time_varying=time)
        every, along = [True] * dimensions, [True] + [False] * (dimensions - 1)
        for order, fields in (
            (
                0,
                {
                    "mask": (False, False, every),
                    "density": (True, True, every),
                    "profile": (True, True, along),
                },
            ),
            (1, {"velocity": (True, True, every), "background": (True, False, every)}),
            (2, {"stress": (True, True, every), "conformation": (False, True, every)}),
        ):
            group = file.create_group(f"t{order}_fields")
            group.attrs["field_names"] = list(fields)
            for name, (sample, time, cells) in fields.items():
                space = tuple(n if varying else 1 for n, varying in zip(grid, cells, strict=True))
                shape = (COUNT,) * sample + (steps,) * time + space + (dimensions,) * order
                group[name] = random.normal(size=shape).astype(np.float32)
                group[name].attrs.update(sample_varying=sample, time_varying=time, dim_varying=cells)
