"""Small made-up files in the layouts of The Well's data sets: names, orders, attributes, axes, boundaries.

Names and axes are those of the metadata that The Well publishes with its data sets; values are smooth noise.
"""

import dataclasses
from pathlib import Path

import h5py
import numpy as np

SPLITS = ("train", "valid", "test")
XY, XYZ = ("x", "y"), ("x", "y", "z")
PERIODIC, WALL, OPEN = "PERIODIC", "WALL", "OPEN"


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the files of a data set look.

    Arguments:
        axes: The grid axes, by name.
        grid: Cells along each; few, in about the proportions of the data set.
        kinds: The boundary of each axis.
        fields: The fields that vary in time, by tensor order.
        constants: Scalar fields that do not, and whether each simulation has its own.
        scalars: The scalar constants.
        grid_type: The attribute of that name.
        steps: The states of each file.
        name: The attribute `dataset_name`, if it is not the folder's name.
        positive: Scalar fields of several decades.
        own_times: Whether each simulation has its own times.
    """

    axes: tuple[str, ...]
    grid: tuple[int, ...]
    kinds: tuple[str, ...]
    fields: tuple[tuple[str, ...], ...]
    constants: tuple[tuple[str, bool], ...] = ()
    scalars: tuple[tuple[str, float], ...] = ()
    grid_type: str = "cartesian"
    steps: tuple[int, ...] = (9,)
    name: str = ""
    positive: tuple[str, ...] = ()
    own_times: bool = False


ACOUSTIC = Layout(
    XY,
    (16, 16),
    (WALL, OPEN),
    (("pressure",), ("velocity",), ()),
    constants=(("density", True), ("speed_of_sound", True)),
    positive=("density", "speed_of_sound"),
)
MHD = Layout(
    XYZ,
    (8, 8, 8),
    (PERIODIC, PERIODIC, PERIODIC),
    (("density",), ("magnetic_field", "velocity"), ()),
    scalars=(("Ma", 0.7), ("Ms", 7.0)),
    positive=("density",),
)
RAYLEIGH_BENARD = Layout(
    XY,
    (32, 8),
    (PERIODIC, WALL),
    (("buoyancy", "pressure"), ("velocity",), ()),
    scalars=(("Rayleigh", 1e6), ("Prandtl", 0.1)),
    steps=(49,),
)
SUPERNOVA = Layout(
    XYZ,
    (8, 8, 8),
    (OPEN, OPEN, OPEN),
    (("density", "pressure", "temperature"), ("velocity",), ()),
    scalars=(("Msun", 0.1), ("rho0", 44.5), ("Z", 1.0), ("T0", 100.0)),
    name="supernova_explosion",
    positive=("density", "pressure", "temperature"),
    own_times=True,
)
LAYOUTS = {
    "acoustic_scattering_discontinuous": ACOUSTIC,
    "acoustic_scattering_inclusions": ACOUSTIC,
    "acoustic_scattering_maze": ACOUSTIC,
    "active_matter": Layout(
        XY,
        (16, 16),
        (PERIODIC, PERIODIC),
        (("concentration",), ("velocity",), ("D", "E")),
        scalars=(("L", 10.0), ("zeta", 17.0), ("alpha", -5.0)),
    ),
    "convective_envelope_rsg": Layout(
        ("r", "theta", "phi"),
        (16, 8, 16),
        (OPEN, PERIODIC, PERIODIC),
        (("density", "energy", "pressure"), ("velocity",), ()),
        grid_type="spherical",
        steps=(21,),
        positive=("density", "energy", "pressure"),
    ),
    "gray_scott_reaction_diffusion": Layout(
        XY,
        (16, 16),
        (PERIODIC, PERIODIC),
        (("A", "B"), (), ()),
        scalars=(("F", 0.014), ("k", 0.054)),
        steps=(21,),
    ),
    "helmholtz_staircase": Layout(
        XY,
        (32, 16),
        (OPEN, OPEN),
        (("pressure_re", "pressure_im"), (), ()),
        constants=(("mask", False),),
        scalars=(("omega", 0.06283032),),
    ),
    "MHD_64": MHD,
    "MHD_256": MHD,
    "planetswe": Layout(
        ("theta", "phi"),
        (16, 32),
        (OPEN, PERIODIC),
        (("height",), ("velocity",), ()),
        grid_type="equiangular",
        steps=(31,),
    ),
    "post_neutron_star_merger": Layout(
        ("log_r", "theta", "phi"),
        (16, 8, 8),
        (OPEN, OPEN, PERIODIC),
        (
            ("density", "internal_energy", "pressure", "temperature", "electron_fraction", "entropy"),
            ("magnetic_field", "velocity"),
            (),
        ),
        grid_type="spherical",
        positive=("density", "internal_energy", "pressure", "temperature", "entropy"),
    ),
    "rayleigh_benard": RAYLEIGH_BENARD,
    "rayleigh_benard_uniform": RAYLEIGH_BENARD,
    "rayleigh_taylor_instability": Layout(
        XYZ,
        (8, 8, 8),
        (PERIODIC, PERIODIC, WALL),
        (("density",), ("velocity",), ()),
        scalars=(("At", 0.0625),),
        positive=("density",),
    ),
    "shear_flow": Layout(
        XY,
        (16, 32),
        (PERIODIC, PERIODIC),
        (("tracer", "pressure"), ("velocity",), ()),
        scalars=(("Rayleigh", 1e4), ("Schmidt", 0.1)),
        steps=(21,),
    ),
    "supernova_explosion_64": SUPERNOVA,
    "supernova_explosion_128": SUPERNOVA,
    "turbulence_gravity_cooling": dataclasses.replace(
        SUPERNOVA, scalars=(("rho0", 44.5), ("T0", 10.0), ("Z", 0.0)), name=""
    ),
    "turbulent_radiative_layer_2D": Layout(
        XY,
        (16, 48),
        (PERIODIC, OPEN),
        (("density", "pressure"), ("velocity",), ()),
        scalars=(("tcool", 0.03),),
        positive=("density", "pressure"),
    ),
    "turbulent_radiative_layer_3D": Layout(
        XYZ,
        (8, 8, 16),
        (PERIODIC, PERIODIC, OPEN),
        (("density", "pressure"), ("velocity",), ()),
        scalars=(("tcool", 0.03),),
        positive=("density", "pressure"),
    ),
    "viscoelastic_instability": Layout(
        XY,
        (16, 16),
        (PERIODIC, WALL),
        (("pressure", "c_zz"), ("velocity",), ("C",)),
        scalars=(("Re", 1000.0), ("Wi", 50.0), ("beta", 0.9), ("epsilon", 2e-6), ("Lmax", 70.0)),
        steps=(20, 60),
    ),
}
"""By data set; those of the Euler equations are written by `waves.write_dataset`."""


def write_well(root: Path, dataset: str, count: int = 2, **changes) -> Path:
    """Write `root/<dataset>/data/<split>/*.hdf5`, a file of `count` trajectories for each number of states.

    Arguments:
        changes: Of the layout.
    """
    layout = dataclasses.replace(LAYOUTS[dataset], **changes)
    for number, split in enumerate(SPLITS):
        folder = root / dataset / "data" / split
        folder.mkdir(parents=True)
        for steps in layout.steps:
            generator = np.random.default_rng([number, steps])
            with h5py.File(folder / f"{dataset}_{steps}.hdf5", "w") as file:
                _write(file, layout, layout.name or dataset, count, steps, generator)
    return root / dataset


def _write(
    file: h5py.File, layout: Layout, name: str, count: int, steps: int, generator: np.random.Generator
) -> None:
    file.attrs.update(
        dataset_name=name,
        grid_type=layout.grid_type,
        n_spatial_dims=len(layout.axes),
        n_trajectories=count,
        simulation_parameters=[each for each, _ in layout.scalars],
        **dict(layout.scalars),
    )
    group = file.create_group("dimensions")
    group.attrs["spatial_dims"] = list(layout.axes)
    times = np.linspace(0, 1, steps, dtype=np.float32)
    group["time"] = times * np.ones((count, 1), np.float32) if layout.own_times else times
    group["time"].attrs["sample_varying"] = layout.own_times
    for axis, cells in zip(layout.axes, layout.grid, strict=True):
        group[axis] = _coordinates(axis, cells)
        group[axis].attrs.update(sample_varying=False, time_varying=False)
    group = file.create_group("scalars")
    group.attrs["field_names"] = [each for each, _ in layout.scalars]
    for each, value in layout.scalars:
        group[each] = value
        group[each].attrs.update(sample_varying=False, time_varying=False)
    stairs = _stairs(layout.grid)
    _write_boundaries(file.create_group("boundary_conditions"), layout, stairs)
    for order, names in enumerate(layout.fields):
        group = file.create_group(f"t{order}_fields")
        given = dict(layout.constants) if order == 0 else {}
        group.attrs["field_names"] = [*names, *given]
        for each in (*names, *given):
            sample, time = given.get(each, True), each not in given
            shape = (count,) * sample + (steps,) * time
            values = noise(generator, shape, layout.grid, (len(layout.grid),) * order)
            values = np.exp(2 * values) if each in layout.positive else values
            group[each] = stairs if each == "mask" else values.astype(np.float32)
            group[each].attrs.update(
                sample_varying=sample, time_varying=time, dim_varying=[True] * len(layout.grid)
            )


def _coordinates(axis: str, cells: int) -> np.ndarray:
    centres = (np.arange(cells) + 0.5) / cells
    low, high = {
        "r": (300, 6700),  # uniform in its logarithm
        "log_r": (np.log(2), np.log(1000)),
        "theta": (0, np.pi),
        "phi": (0, 2 * np.pi),
    }.get(axis, (0, 1))
    values = np.geomspace(low, high, cells) if axis == "r" else low + (high - low) * centres
    return values.astype(np.float32)


def _stairs(grid: tuple[int, ...]) -> np.ndarray:
    """Cells of a staircase along the first axis, at the lower end of the second."""
    i, j = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    return (j <= 1 + np.abs(i % 8 - 4) // 2).astype(np.float32)


def _write_boundaries(group: h5py.Group, layout: Layout, stairs: np.ndarray) -> None:
    for axis, cells, kind in zip(layout.axes, layout.grid, layout.kinds, strict=True):
        ends = np.isin(np.arange(cells), (0, cells - 1))
        _write_boundary(group.create_group(f"{axis}_{kind.lower()}"), [axis], kind, ends)
    if any(name == "mask" for name, _ in layout.constants):
        _write_boundary(group.create_group("xy_wall"), list(layout.axes), WALL, stairs > 0)


def _write_boundary(group: h5py.Group, axes: list[str], kind: str, mask: np.ndarray) -> None:
    group.attrs.update(associated_dims=axes, bc_type=kind, sample_varying=False, time_varying=False)
    group.attrs["associated_fields"] = np.array([], dtype=h5py.string_dtype())
    group["mask"] = mask


def noise(
    generator: np.random.Generator, lead: tuple[int, ...], grid: tuple[int, ...], components: tuple[int, ...]
) -> np.ndarray:
    """Normal numbers of shape `(*lead, *grid, *components)`, averaged over neighbours along the grid."""
    values = generator.normal(size=(*lead, *grid, *components))
    for axis in range(len(lead), len(lead) + len(grid)):
        values = (values + np.roll(values, 1, axis)) / np.sqrt(2)
    return values
