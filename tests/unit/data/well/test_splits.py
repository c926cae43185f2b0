import pickle
import threading

import h5py
import numpy as np
import pytest
import torch

from lola.core.errors import ConfigError, DataError
from lola.data.description import EULER, RAYLEIGH_BENARD
from lola.data.systems import Boundary
from lola.data.transforms import Standardisation
from lola.data.well.splits import open_split
from lola.data.well.windows import WellWindows
from lola.data.well.writer import write_well_file

OPEN, PERIODIC = "euler_multi_quadrants_openBC", "euler_multi_quadrants_periodicBC"
BOUNDARIES = {OPEN: Boundary.OPEN, PERIODIC: Boundary.PERIODIC}
STEPS, GRID = 12, (6, 4)


def euler_fields(seed, steps=STEPS, grid=GRID):
    generator = np.random.default_rng(seed)
    shape = (steps, *grid)
    fields = {name: generator.uniform(0.1, 2, shape) for name in ("energy", "density", "pressure")}
    fields["momentum"] = generator.normal(size=(*shape, 2))
    return {name: values.astype(np.float32) for name, values in fields.items()}


def write(root, dataset=OPEN, name="a", split="train", seeds=(0, 1), gamma=1.4, grid=GRID):
    path = root / dataset / "data" / split / f"{name}.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    trajectories = [euler_fields(seed, grid=grid) for seed in seeds]
    write_well_file(
        path,
        dataset=dataset,
        count=len(seeds),
        trajectories=trajectories,
        times=np.linspace(0, 1, len(trajectories[0]["density"])),
        axes={name: np.arange(n) / n for name, n in zip("xy", grid, strict=True)},
        scalars={"gamma": gamma},
        boundary=np.full((2, 2), BOUNDARIES[dataset]),
    )
    return path


@pytest.fixture
def root(tmp_path):
    write(tmp_path, OPEN, "a", seeds=(0, 1))
    write(tmp_path, OPEN, "b", seeds=(2,), gamma=1.3)
    write(tmp_path, PERIODIC, "a", seeds=(3, 4, 5))
    return tmp_path


def stacked(seed):
    fields = euler_fields(seed)
    scalars = [fields[name] for name in ("energy", "density", "pressure")]
    return torch.from_numpy(np.stack([*scalars, *np.moveaxis(fields["momentum"], -1, 0)]))


def test_trajectories_in_the_order_of_the_system(root):
    split = open_split(root, EULER, "train")
    assert (split.grid, split.steps, split.parameter_count, split.constants) == (GRID, STEPS, 5, ("gamma",))
    assert [ref.id for ref in split.trajectories] == [
        f"{OPEN}/train/a.hdf5#0",
        f"{OPEN}/train/a.hdf5#1",
        f"{OPEN}/train/b.hdf5#0",
        f"{PERIODIC}/train/a.hdf5#0",
        f"{PERIODIC}/train/a.hdf5#1",
        f"{PERIODIC}/train/a.hdf5#2",
    ]
    for i in range(6):
        assert torch.equal(split.read(i, 0, STEPS), stacked(i))
    torch.testing.assert_close(split.parameters(2), torch.tensor([1.3, 1, 1, 1, 1]))
    torch.testing.assert_close(split.parameters(4), torch.tensor([1.4, 2, 2, 2, 2]))
    assert split.trajectories[4].boundary.tolist() == [[2, 2], [2, 2]]


def test_slices(root):
    split = open_split(root, EULER, "train")
    assert torch.equal(split.read(1, 3, 11, 3), stacked(1)[:, 3:11:3])
    assert split.read(1, 3, 4).shape == (5, 1, *GRID)
    for start, stop in ((0, STEPS + 1), (-1, 2), (3, 3)):
        with pytest.raises(IndexError):
            split.read(0, start, stop)


def test_only_the_slice_is_read(root, monkeypatch):
    sizes = []
    original = h5py.Dataset.__getitem__

    def spy(self, key):
        values = original(self, key)
        sizes.append(np.size(values))
        return values

    split = open_split(root, EULER, "train")
    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    split.read(0, 2, 7, 2)
    assert sum(sizes) == 5 * 3 * GRID[0] * GRID[1]


def test_filters(root):
    assert len(open_split(root, EULER, "train", include=["b."]).trajectories) == 1
    assert len(open_split(root, EULER, "train", exclude=["a."]).trajectories) == 1
    with pytest.raises(ConfigError, match="--include gamma matches no file"):
        open_split(root, EULER, "train", include=["gamma"])


def test_pickled_and_read_by_threads(root):
    split = pickle.loads(pickle.dumps(open_split(root, EULER, "train")))
    wrong = []

    def work():
        wrong.extend(i for i in range(6) if not torch.equal(split.read(i, 0, STEPS), stacked(i)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_fingerprint(root, tmp_path_factory):
    first = open_split(root, EULER, "train").fingerprint
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in root.rglob("*.hdf5"):
        copy = elsewhere / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert open_split(elsewhere, EULER, "train").fingerprint == first
    seen = {first}
    for change in ({"seeds": (9,)}, {"gamma": 1.31}, {"seeds": (2, 3)}, {"name": "c"}):
        write(elsewhere, OPEN, **{"name": "b", "seeds": (2,), "gamma": 1.3, **change})
        seen.add(open_split(elsewhere, EULER, "train").fingerprint)
    assert len(seen) == 5


def test_a_replaced_file_is_read_again(root):
    split = open_split(root, EULER, "train")
    split.read(2, 0, STEPS)
    path = split.trajectories[2].file
    path.unlink()
    write(root, OPEN, "b", seeds=(7,))
    assert torch.equal(split.read(2, 0, STEPS), stacked(7))


def remove(name):
    def fault(path):
        with h5py.File(path, "r+") as file:
            del file[name]

    return fault


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


def reshape(path):
    with h5py.File(path, "r+") as file:
        del file["t1_fields/momentum"]
        file["t1_fields/momentum"] = np.zeros((2, STEPS, *GRID, 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (truncate, "cannot be opened as HDF5"),
        (lambda path: path.write_bytes(b"no HDF5 at all"), "cannot be opened as HDF5"),
        (remove("t0_fields/density"), "no field t0_fields/density"),
        (remove("t1_fields"), "no field t1_fields/momentum"),
        (remove("dimensions"), "not in The Well's layout"),
        (remove("boundary_conditions"), "not in The Well's layout"),
        (remove("scalars/gamma"), "not in The Well's layout"),
        (reshape, "momentum of shape"),
    ],
)
def test_faults_are_named_in_one_line(root, fault, message):
    path = root / OPEN / "data" / "train" / "a.hdf5"
    fault(path)
    with pytest.raises(DataError, match=message) as error:
        open_split(root, EULER, "train")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_hdf5_file_of_another_kind(root):
    with h5py.File(root / OPEN / "data" / "train" / "c.hdf5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(DataError, match=rf"c\.hdf5 \({OPEN}\) is not in The Well's layout"):
        open_split(root, EULER, "train")


def test_files_unlike_the_others(root):
    write(root, PERIODIC, "c", seeds=(0,), grid=(4, 4))
    with pytest.raises(DataError, match=r"c\.hdf5 .* has grid \(4, 4\), but a\.hdf5 has \(6, 4\)"):
        open_split(root, EULER, "train")
    assert open_split(root, EULER, "train", exclude=["c"]).grid == GRID


def test_missing_folder_and_missing_dataset(root):
    with pytest.raises(DataError, match=f"no HDF5 files in {OPEN}/data/valid or {PERIODIC}/data/valid"):
        open_split(root, EULER, "valid")
    for path in (root / OPEN / "data" / "train").iterdir():
        path.unlink()
    assert len(open_split(root, EULER, "train").trajectories) == 3


def test_non_finite_fields(root):
    split = open_split(root, EULER, "train")
    with h5py.File(split.trajectories[0].file, "r+") as file:
        file["t0_fields/pressure"][1, 5, 2, 2] = np.nan
    assert split.read(1, 0, 5).isfinite().all()
    with pytest.raises(DataError, match=f"{OPEN}/train/a.hdf5#1 .*pressure is not finite in states 4 to 6"):
        split.read(1, 4, 7)


@pytest.mark.parametrize("value", [1e39, -1e200])
def test_fields_beyond_float32_are_named(root, value):
    split = open_split(root, EULER, "train")
    with h5py.File(split.trajectories[0].file, "r+") as file:
        values, attributes = (
            file["t0_fields/pressure"][:].astype(np.float64),
            file["t0_fields/pressure"].attrs,
        )
        attributes = dict(attributes)
        del file["t0_fields/pressure"]
        values[1, 5, 2, 2] = value
        file["t0_fields"].create_dataset("pressure", data=values).attrs.update(attributes)
    message = (
        rf"{OPEN}/train/a.hdf5#1 .*pressure holds {value:g}".replace("+", r"\+") + ", beyond the largest"
    )
    with pytest.raises(DataError, match=message):
        split.read(1, 4, 7)
    buffer = np.empty((5, 3, *split.grid), np.float32)
    with pytest.raises(DataError, match=message):
        split.read_into(buffer, 1, 4, 7)


def test_constants_beyond_float32_are_named(root):
    (path, *_) = sorted((root / OPEN / "data" / "train").iterdir())
    with h5py.File(path, "r+") as file:
        attributes = dict(file["scalars/gamma"].attrs)
        del file["scalars/gamma"]
        file["scalars"].create_dataset("gamma", data=1e300).attrs.update(attributes)
    with pytest.raises(DataError, match=rf"a constant of .*{path.name} .*holds 1e\+300"):
        open_split(root, EULER, "train")


def convection_fields(seed, grid=GRID):
    generator = np.random.default_rng(seed)
    fields = {name: generator.normal(size=(STEPS, *grid)) for name in ("buoyancy", "pressure")}
    return {**fields, "velocity": generator.normal(size=(STEPS, *grid, 2))}


@pytest.mark.parametrize("rayleigh", [1e6, 0.0])
def test_parameters_of_convection(tmp_path, rayleigh):
    """Scalars in the file's order, some as logarithms; a scalar that varies in time is no parameter."""
    folder = tmp_path / "rayleigh_benard" / "data" / "test"
    folder.mkdir(parents=True)
    write_well_file(
        folder / "a.hdf5",
        dataset="rayleigh_benard",
        count=1,
        trajectories=[convection_fields(0)],
        times=np.arange(STEPS),
        axes={"x": np.arange(GRID[0]), "y": np.arange(GRID[1])},
        scalars={"Rayleigh": rayleigh, "Prandtl": 0.5, "drift": 3.0},
        boundary=np.array([[2, 2], [0, 1]]),
    )
    with h5py.File(folder / "a.hdf5", "r+") as file:
        file["scalars/drift"].attrs["time_varying"] = True
    if rayleigh == 0:
        with pytest.raises(DataError, match="has Rayleigh 0, not positive"):
            open_split(tmp_path, RAYLEIGH_BENARD, "test")
        return
    split = open_split(tmp_path, RAYLEIGH_BENARD, "test")
    expected = torch.tensor([13.815511, -0.693147, 2, 2, 0, 1])
    torch.testing.assert_close(split.parameters(0), expected)
    assert split.parameter_count == 6


def test_windows(root):
    split, standardise = open_split(root, EULER, "train"), Standardisation(EULER)
    windows = WellWindows(split, standardise, 3, 4)
    assert len(windows) == 6 * 4
    for index, (i, start) in {0: (0, 0), 3: (0, 3), 4: (1, 0), 23: (5, 3)}.items():
        states, parameters = windows.read(index, (0, "key"))
        assert torch.equal(states, standardise.forward(stacked(i)[:, start : start + 9 : 4]))
        assert torch.equal(parameters, split.parameters(i))
    with pytest.raises(DataError, match="no window of 5 states 3 steps apart"):
        WellWindows(split, standardise, 5, 3)


def test_augmented_windows_are_functions_of_the_key(root):
    windows = WellWindows(open_split(root, EULER, "train"), Standardisation(EULER), 2, symmetries="plain")
    plain = WellWindows(windows.split, windows.standardise, 2).read(40, ())[0]
    draws = [windows.read(40, (0, "step", k))[0] for k in range(20)]
    assert all(torch.equal(windows.read(40, (0, "step", k))[0], draw) for k, draw in enumerate(draws))
    assert len({draw.numpy().tobytes() for draw in draws}) > 15
    for draw in draws:  # A symmetry moves the cells of a scalar and keeps their values.
        assert torch.equal(draw[1].flatten().sort().values, plain[1].flatten().sort().values)


def test_unphysical_fields_are_named(root):
    windows = WellWindows(open_split(root, EULER, "train"), Standardisation(EULER), 2)
    with h5py.File(windows.split.trajectories[2].file, "r+") as file:
        file["t0_fields/density"][0, 0, 0, 0] = -2
    with pytest.raises(DataError, match=r"b\.hdf5#0 .*density holds -2"):
        windows.read(windows.numbering.offsets[2].item(), ())
