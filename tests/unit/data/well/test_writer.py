import h5py
import numpy as np
import pytest
import torch
import yaml

from lola.core.errors import DataError
from lola.data.description import EULER
from lola.data.well.splits import open_split
from lola.data.well.writer import Moments, write_statistics, write_well_file

the_well_data = pytest.importorskip("the_well.data")

DATASET = "euler_multi_quadrants_periodicBC"
COUNT, STEPS, GRID = 3, 37, (6, 5)


def fields(seed):
    generator = np.random.default_rng(seed)
    shape = (STEPS, *GRID)
    return {
        "energy": generator.uniform(1, 3, shape).astype(np.float32),
        "density": (1e3 + 1e-2 * generator.uniform(size=shape)).astype(np.float32),
        "pressure": generator.uniform(0.1, 2, shape).astype(np.float32),
        "momentum": generator.normal(size=(*shape, 2)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("well")
    folder = root / DATASET / "data" / "train"
    folder.mkdir(parents=True)
    for number in range(2):
        write_well_file(
            folder / f"{number}.hdf5",
            dataset=DATASET,
            count=COUNT,
            trajectories=(fields(10 * number + seed) for seed in range(COUNT)),
            times=np.linspace(0, 1.5, STEPS),
            axes={"x": np.arange(GRID[0]) / 6, "y": np.arange(GRID[1]) / 5},
            scalars={"gamma": 1.4 + number},
            boundary=np.array([[2, 2], [0, 1]]),
        )
    write_statistics(root / DATASET)
    return root


def test_the_well_reads_what_we_read(root):
    theirs = the_well_data.WellDataset(
        well_base_path=str(root), well_dataset_name=DATASET, well_split_name="train", n_steps_output=STEPS - 1
    )
    ours = open_split(root, EULER, "train")
    assert theirs.metadata.field_names == {
        0: ["energy", "density", "pressure"],
        1: ["momentum_x", "momentum_y"],
        2: [],
    }
    assert theirs.metadata.constant_scalar_names == ["gamma"]
    assert theirs.metadata.spatial_resolution == GRID
    assert theirs.metadata.n_steps_per_trajectory == [STEPS, STEPS]
    assert len(theirs) == len(ours.trajectories) == 2 * COUNT
    for i in range(2 * COUNT):
        sample = theirs[i]
        states = torch.cat([sample["input_fields"], sample["output_fields"]])
        assert torch.equal(ours.read(i, 0, STEPS), torch.movedim(states, -1, 0))
        label = torch.cat([sample["constant_scalars"], sample["boundary_conditions"].flatten()])
        torch.testing.assert_close(ours.parameters(i), label.float())
    torch.testing.assert_close(theirs[0]["space_grid"][1, 2], torch.tensor([1 / 6, 2 / 5]))


def test_the_well_normalises_with_our_statistics(root):
    from the_well.data.normalization import RMSNormalization, ZScoreNormalization

    for kind in (ZScoreNormalization, RMSNormalization):
        dataset = the_well_data.WellDataset(
            path=str(root / DATASET), well_split_name="train", use_normalization=True, normalization_type=kind
        )
        x = torch.stack([dataset[i]["input_fields"] for i in range(len(dataset))])
        if kind is ZScoreNormalization:
            torch.testing.assert_close(x[..., 0].mean(), torch.tensor(0.0), atol=2e-2, rtol=0)
            torch.testing.assert_close(x[..., 3].std(), torch.tensor(1.0), atol=2e-2, rtol=0)
        else:
            torch.testing.assert_close(x[..., 2].square().mean(), torch.tensor(1.0), atol=2e-2, rtol=0)


def test_statistics(root):
    """Against all values at once, in double precision; the density's deviation is 1e-5 of its mean."""
    statistics = yaml.safe_load((root / DATASET / "stats.yaml").read_text())
    names = ("mean", "std", "rms")
    assert set(statistics) == {*names, *(f"{name}_delta" for name in names)}
    for name in ("energy", "density", "pressure", "momentum"):
        x = np.stack([fields(10 * n + s)[name] for n in range(2) for s in range(COUNT)]).astype(np.float64)
        for suffix, values in (("", x), ("_delta", np.diff(x, axis=1))):
            axes = (0, 1, 2, 3)
            expected = values.mean(axes), values.std(axes), np.sqrt((values**2).mean(axes))
            for statistic, value in zip(names, expected, strict=True):
                np.testing.assert_allclose(statistics[statistic + suffix][name], value, rtol=1e-9, atol=1e-12)


def test_moments_of_small_blocks():
    x = 1e6 + np.random.default_rng(0).normal(size=(100, 3))
    moments = Moments()
    for start in range(0, 100, 7):
        moments.add(x[start : start + 7], 1)
    moments.add(x[:0], 1)
    np.testing.assert_allclose(moments.summary()["std"], x.std(0), rtol=1e-9)


def test_layout(root):
    """What the specification of the format asks for, beyond what The Well's reader looks at."""
    with h5py.File(root / DATASET / "data" / "train" / "1.hdf5") as file:
        assert file.attrs["dataset_name"] == DATASET
        assert file.attrs["grid_type"] == "cartesian"
        assert list(file.attrs["simulation_parameters"]) == ["gamma"]
        assert file.attrs["gamma"] == file["scalars/gamma"][()] == 2.4
        momentum = file["t1_fields/momentum"]
        assert (momentum.shape, momentum.dtype) == ((COUNT, STEPS, *GRID, 2), np.float32)
        assert momentum.chunks is None  # Contiguous: consecutive states are consecutive bytes.
        assert dict(momentum.attrs)["dim_varying"].tolist() == [True, True]
        conditions = {
            name: (group.attrs["bc_type"], list(group.attrs["associated_dims"]), group["mask"][:].tolist())
            for name, group in file["boundary_conditions"].items()
        }
    middle = [False] * 3
    assert conditions == {
        "x_periodic": ("PERIODIC", ["x"], [True, *middle, False, True]),
        "y_wall": ("WALL", ["y"], [True, *middle, False]),
        "y_open": ("OPEN", ["y"], [False, *middle, True]),
    }


@pytest.mark.parametrize("given", [0, 1, 3])
def test_the_announced_count_is_kept(tmp_path, given):
    with pytest.raises(ValueError, match="2 trajectories were announced"):
        write_well_file(
            tmp_path / "a.hdf5",
            dataset=DATASET,
            count=2,
            trajectories=[fields(0)] * given,
            times=np.arange(STEPS),
            axes={"x": np.arange(GRID[0]), "y": np.arange(GRID[1])},
            scalars={},
            boundary=np.ones((2, 2)),
        )


def test_statistics_of_nothing(tmp_path):
    with pytest.raises(DataError, match="no HDF5 files"):
        write_statistics(tmp_path)


@pytest.mark.filterwarnings("ignore:Only axis-aligned boundary:RuntimeWarning")
def test_labels_of_stranger_files(root, tmp_path):
    """Masks over both axes at once and a scalar of its own in each trajectory, as The Well reads them."""
    path = tmp_path / DATASET / "data" / "test" / "a.hdf5"
    path.parent.mkdir(parents=True)
    path.write_bytes((root / DATASET / "data" / "train" / "0.hdf5").read_bytes())
    mask = np.zeros(GRID, dtype=bool)
    mask[0], mask[-1, :3], mask[:, 0] = True, True, True
    with h5py.File(path, "r+") as file:
        for name in list(file["boundary_conditions"]):
            del file["boundary_conditions"][name]
        wall = file["boundary_conditions"].create_group("wall")
        wall.attrs.update(bc_type="wall", associated_dims=["x", "y"])
        wall["mask"] = mask
        del file["scalars/gamma"]
        file["scalars/gamma"] = np.array([1.1, 1.2, 1.3])
        file["scalars/gamma"].attrs.update(time_varying=False, sample_varying=True)
    theirs = the_well_data.WellDataset(path=str(tmp_path / DATASET), well_split_name="test")
    ours = open_split(tmp_path, EULER, "test")
    assert ours.trajectories[0].boundary.tolist() == [[0, 1], [0, 1]]
    for i in range(COUNT):
        sample = theirs[i * (STEPS - 1)]
        label = torch.cat([sample["constant_scalars"], sample["boundary_conditions"].flatten()])
        torch.testing.assert_close(ours.parameters(i), label.float())
