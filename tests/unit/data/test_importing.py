"""NumPy, NetCDF and Zarr files become datasets, read a few states at a time."""

import runpy
import shutil
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import lola
from lola.core.errors import LolaError
from lola.data.import_config import ImportConfig
from lola.data.importing import import_data

ROOT = Path(__file__).parents[3]
COUNT, STEPS, GRID = 6, 7, (5, 4)
SHARES = (0.5, 0.25, 0.25)


def arrays():
    random = np.random.default_rng(0)
    shape = (COUNT, STEPS, *GRID)
    return {
        "height": random.normal(size=shape),
        "u": random.normal(size=shape),
        "v": random.normal(size=shape),
        "wind": random.normal(size=(*shape, 2)),
        "depth": random.normal(size=GRID),
        "rest": random.normal(size=(COUNT, *GRID)),
        "gravity": np.arange(COUNT) + 1.0,
    }


AXES = {"time": np.arange(STEPS) / 2 + 3, "x": np.arange(5) / 5, "y": np.arange(4) * 2.0}


def dataset():
    import xarray

    given = arrays()
    dims = ("trajectory", "time", "x", "y")
    whole = {name: (dims, given[name]) for name in ("height", "u", "v")}
    return xarray.Dataset(
        whole
        | {
            "wind": ((*dims, "component"), given["wind"]),
            "depth": (("x", "y"), given["depth"]),
            "rest": (("trajectory", "x", "y"), given["rest"]),
            "gravity": ("trajectory", given["gravity"]),
            "label": ("trajectory", [f"run {i}" for i in range(COUNT)]),
        },
        AXES,
        {"viscosity": 0.5},
    )


def convert(folder, *inputs, **options):
    options = {"boundaries": ("periodic",), "constants": ("depth", "rest"), "shares": SHARES} | options
    lines = []
    inputs = tuple(map(str, inputs))
    import_data(ImportConfig(inputs=inputs, output=str(folder), name="sea", **options), lines.append)
    return lines


def check(folder, *, scalars=("gravity",), velocity=True):
    """Every trajectory is in one split, with its fields, constants and times."""
    given, seen = arrays(), []
    for split in ("train", "valid", "test"):
        ours = lola.open_well(folder, "sea", split)
        assert ours.grid == GRID
        assert set(scalars) == set(ours.constants)
        for k in range(len(ours.trajectories)):
            i = int(ours.parameters(k)[ours.constants.index("gravity")]) - 1
            seen.append(i)
            read = dict(zip(ours.system.channels, ours.read(k, 0, STEPS).numpy(), strict=True))
            expected = {"height": given["height"][i], "wind_x": given["wind"][i, ..., 0]}
            expected |= {"depth": [given["depth"]] * STEPS, "rest": [given["rest"][i]] * STEPS}
            if velocity:
                expected["velocity_y"] = given["v"][i]
            for name, values in expected.items():
                np.testing.assert_array_equal(read[name], np.asarray(values, np.float32), name)
            np.testing.assert_allclose(ours.axis(k, "y"), AXES["y"])
            np.testing.assert_allclose(ours.axis(k, "time"), AXES["time"])
            assert ours.parameters(k)[-4:].tolist() == [2, 2, 2, 2]
    assert sorted(seen) == list(range(COUNT))


VELOCITY = {"fields": ("height", "wind"), "vectors": ("velocity=u,v",)}
NAMED = {"dimensions": ("trajectory", "time", "x", "y")}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_all_trajectories(tmp_path, save):
    save(tmp_path / "all.npz", **arrays(), **AXES)
    lines = convert(tmp_path, tmp_path / "all.npz", **NAMED, **VELOCITY)
    check(tmp_path)
    assert lines[0] == (
        "6 trajectories of 7 states, grid x 5, y 4; fields height, wind, velocity; "
        "constant fields depth, rest; constants gravity"
    )


def test_times_may_be_repeated_for_each_trajectory(tmp_path):
    np.savez(tmp_path / "all.npz", **arrays(), **AXES | {"time": np.tile(AXES["time"], (COUNT, 1))})
    convert(tmp_path, tmp_path / "all.npz", **NAMED, **VELOCITY)
    check(tmp_path)


def test_npz_of_one_trajectory_each(tmp_path):
    for i in range(COUNT):
        one = {name: values if name == "depth" else values[i] for name, values in arrays().items()}
        np.savez(tmp_path / f"run{i}.npz", **one, **AXES)
    convert(tmp_path, *sorted(tmp_path.glob("*.npz")), dimensions=("time", "x", "y"), **VELOCITY)
    check(tmp_path)


def test_npy_with_axes_in_any_order(tmp_path):
    for name, values in (arrays() | AXES).items():
        order = {4: (2, 3, 0, 1), 5: (2, 3, 0, 1, 4)}.get(values.ndim)
        order = (1, 2, 0) if name == "rest" else order
        np.save(tmp_path / f"{name}.npy", values.transpose(order) if order else values)
    files = sorted(tmp_path.glob("*.npy"))
    convert(tmp_path, *files, dimensions=("x", "y", "trajectory", "time"), **VELOCITY)
    check(tmp_path)


@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_files_of_xarray(tmp_path, kind):
    pytest.importorskip("xarray")
    path = tmp_path / "all.nc" if kind == "netcdf" else tmp_path / "all.zarr"
    given = dataset().transpose("y", "trajectory", "time", "x", "component")
    if kind == "netcdf":
        given.to_netcdf(path, engine="h5netcdf")
    else:
        given.drop_vars("label").to_zarr(path, zarr_format=2, consolidated=True)
    options = {"scalars": ("gravity", "viscosity", "rate=2"), "space": ("x", "y")}
    lines = convert(tmp_path, path, **options, **VELOCITY)
    check(tmp_path, scalars=("gravity", "viscosity", "rate"))
    assert [line.startswith("left out: label (") for line in lines[1:]] == [True] * (kind == "netcdf")


def test_netcdf_of_one_trajectory_each_with_default_options(tmp_path):
    pytest.importorskip("xarray")
    for i in range(COUNT):
        one = dataset().isel(trajectory=i).drop_vars(["label", "trajectory"], errors="ignore")
        one.to_netcdf(tmp_path / f"run{i}.nc", engine="h5netcdf")
    convert(tmp_path, *sorted(tmp_path.glob("*.nc")))
    check(tmp_path, velocity=False)


def test_memory_is_that_of_a_block_of_states(tmp_path):
    """Eight trajectories of 8 MB, in one compressed file: 64 MB of doubles, of which 6 MB are held."""
    x = np.arange(128.0)
    np.savez_compressed(tmp_path / "all.npz", u=np.zeros((8, 64, 128, 128)), x=x)
    tracemalloc.start()
    try:
        convert(tmp_path, tmp_path / "all.npz", constants=(), **NAMED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16e6, f"{peak / 1e6:.1f} MB"


def broken(name):
    values = arrays()
    values[name][3, 2, 1, 1] = np.nan
    return values


FAULTS = {
    "missing": ("none.npz", {}, "none.npz does not exist"),
    "no names": ("all.npz", {"dimensions": ()}, r"axes of arrays in .*all.npz have no names \(height \("),
    "too many names": ("all.npz", {"dimensions": (*"abcde", "time", "x")}, "no array in .* the 7 --dim"),
    "no such field": ("all.npz", {"fields": ("h",)}, "--fields names h; all.npz has height, u, v"),
    "no such constant": ("all.npz", {"scalars": ("nu",)}, "--scalars names nu; all.npz has"),
    "no such axis": ("all.npz", {"space": ("z",)}, "--space names z; all.npz has the axes"),
    "no time": ("all.npz", {"time": "t", "dimensions": ("trajectory", "t", "x", "y"), "fields": ("depth",)},
                "depth has the axes x, y, not t and x, y"),
    "text": ("text.npz", {}, "text.npz cannot be read as NumPy: .*"),
    "not a number": ("nan.npz", {}, "height of trajectory 3, states 0 to 6 is not finite"),
    "no NetCDF": ("text.nc", {}, "text.nc cannot be read as NetCDF"),
    "corrupt": ("corrupt.npz", {"fields": ("height",)}, "height in .*corrupt.npz cannot be read: Bad CRC"),
    "two kinds": ("all.npz height.npy", {}, "height.npy is one field"),
    "two lengths": ("all.npz short.npz", {}, "short.npz has other shapes than all.npz"),
    "other times": ("all.npz slow.npz", {}, "slow.npz has other coordinates of time than all.npz"),
    "another grid": ("all.npz wide.npz", {}, "wide.npz has other coordinates of y than all.npz"),
    "other variables": ("all.npz height.npz", {}, "height.npz has no"),
    "many values": ("all.npz", {"scalars": ("depth",)}, "depth in all.npz is no single number"),
    "fewer trajectories": ("few.npz", {}, "u in few.npz has 5 along trajectory, and height 6; save the same"),
    "twice the same name": ("height.npy again/height.npy", {}, r"height.npy and \S+height.npy are both the"),
    "own times": ("own.npz", {}, "time in own.npz differs among trajectories, which all have the same"),
    "curved axes": ("curved.npz", {}, "x in curved.npz has the axes x, y, and coordinates have x alone"),
    "fortran": ("fortran.npz", {}, "height in .*fortran.npz is stored in Fortran order"),
    "boundary": ("all.npz", {"boundaries": ("x=periodic",)}, "boundaries must name the axes x, y, not x"),
    "boundary without axis": ("all.npz", {"boundaries": ("x", "y")}, "--boundaries takes one KIND, or"),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "all.npz", **arrays(), **AXES)
    np.savez(folder / "nan.npz", **broken("height"))
    np.savez(folder / "height.npz", height=arrays()["height"])
    np.save(folder / "height.npy", arrays()["height"])
    np.savez(folder / "short.npz", **{k: v[:, :5] if v.ndim > 3 else v for k, v in arrays().items()})
    np.savez(folder / "slow.npz", **arrays(), **AXES | {"time": 2 * AXES["time"]})
    np.savez(folder / "wide.npz", **arrays(), **AXES | {"y": 2 * AXES["y"]})
    np.savez(folder / "few.npz", **arrays() | {"u": arrays()["u"][:5]})
    times = np.arange(1.0, COUNT + 1)[:, None] * AXES["time"]
    np.savez(folder / "own.npz", **arrays(), **AXES | {"time": times})
    np.savez(folder / "curved.npz", **arrays(), x=np.ones(GRID))
    (folder / "again").mkdir()
    np.save(folder / "again" / "height.npy", arrays()["height"])
    np.savez(folder / "fortran.npz", height=np.asfortranarray(arrays()["height"]))
    np.savez(folder / "corrupt.npz", height=arrays()["height"])
    data = bytearray((folder / "corrupt.npz").read_bytes())
    data[5000] ^= 255
    (folder / "corrupt.npz").write_bytes(data)
    for name in ("text.npz", "text.nc"):
        (folder / name).write_text("not data")
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_imported_is_refused_in_one_line(tmp_path, files, fault):
    names, options, message = FAULTS[fault]
    if names.endswith(".nc"):
        pytest.importorskip("xarray")
    inputs = [files / name for name in names.split()]
    with pytest.raises(LolaError, match=message) as caught:
        convert(tmp_path, *inputs, **{"constants": (), **NAMED, **options})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_command_imports_and_never_replaces_unasked(tmp_path, files, monkeypatch, capsys):
    def run(*options, path=files / "all.npz"):
        command = ["import_data.py", str(path), "--output", str(tmp_path), "--name", "sea"]
        command += ["--dimensions", *NAMED["dimensions"], "--boundaries", "x=periodic", "y=wall,open"]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        runpy.run_path(str(ROOT / "experiments" / "import_data.py"), run_name="__main__")

    run("--fields", "height")
    assert f"dataset: {tmp_path}/sea" in capsys.readouterr().out
    assert lola.open_well(tmp_path, "sea").parameters(0)[-4:].tolist() == [2, 2, 0, 1]
    with pytest.raises(SystemExit, match=r"import_data.py: error: .*/sea/data exists; give another name"):
        run("--fields", "u")
    run("--fields", "u", "--overwrite")
    assert lola.open_well(tmp_path, "sea").system.channels == ("u",)
    inside = tmp_path / "sea" / "data" / "all.npz"
    shutil.copy(files / "all.npz", inside)
    with pytest.raises(SystemExit, match=r"all\.npz: imported files are in \S+/sea, which is replaced"):
        run("--overwrite", path=inside)
    assert inside.stat().st_size
