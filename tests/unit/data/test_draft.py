"""Drafts of descriptions: each suggestion follows from the data."""

import runpy
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import lola
from lola.core.errors import DataError, MissingDataError
from lola.data.draft import describe_dataset
from lola.data.well.datasets import Datasets
from lola.data.well.find import find_system

ROOT = Path(__file__).parents[3]
COUNT, STEPS, CELLS = 4, 65, 16
AXIS = np.arange(CELLS) / CELLS


def waves(count, speed, axes=2, stretch=1):
    """Waves that move along the first axis; they keep their totals."""
    grid = np.meshgrid(*[AXIS] * axes, indexing="ij")
    times = np.arange(STEPS).reshape(-1, *[1] * axes)
    return np.array(
        [
            sum(
                np.sin(2 * np.pi * (x * (stretch if k else 1) - speed * times + i / 7))
                for k, x in enumerate(grid)
            )
            for i in range(count)
        ]
    )


def write(folder, arrays, boundaries="periodic", axes=("x", "y"), **options):
    path = lola.write_well(
        folder, "mine", arrays, axes=dict.fromkeys(axes, AXIS), boundaries=boundaries, **options
    )
    describe_dataset(str(path), False, lambda _: None)
    return yaml.safe_load((path / "system.yaml").read_text()), (path / "system.yaml").read_text()


def test_fields_are_transformed_by_what_their_values_say(tmp_path):
    random = np.random.default_rng(0)
    wave, shape = waves(COUNT, 0.01), (COUNT, STEPS, CELLS, CELLS)
    zeros = np.exp(6 * wave / 2)
    zeros[:, :, 3, 3] = 0
    arrays = {
        "density": np.exp(5 * wave / 2),
        "rain": zeros,
        "pressure": 100 + wave,
        "vorticity": 50 * random.standard_t(2, shape),
        "weak": 1e-3 * random.standard_t(2, shape),
        "velocity": np.stack([wave, wave], -1),
        "spots": np.where(wave > 1.5, 0.4, 1e-9),  # two values, not decades
    }
    values, text = write(tmp_path, arrays)
    transforms = {name: field.get("transform", "identity") for name, field in values["fields"].items()}
    assert transforms == {
        "density": "log",
        "rain": "log_eps",
        "pressure": "identity",
        "vorticity": "arcsinh",
        "weak": "identity",
        "velocity": "identity",
        "spots": "identity",
    }
    assert "positive, 4.2 decades between its quantiles 0.01 and 0.99" in text
    assert "weak: {}  # " in text
    assert "too small for arcsinh to matter" in text
    assert values["shown"] == "density"
    assert values["bounds"] == {name: [0, None] for name in ("density", "rain", "pressure", "spots")}


def test_axes_and_totals(tmp_path):
    wave = waves(COUNT, 0.01)
    values, text = write(tmp_path, {"u": wave, "growing": wave * np.linspace(1, 2, STEPS)[:, None, None] + 1})
    assert values["symmetries"] == {"roll": True, "permute": True}
    assert "# flips: [0, 1]" in text
    assert '# geometry: {x: uniform, "y": uniform}\n' in text
    assert "conserved" not in values
    assert "#   u: {channels: [u], boundaries: [periodic]}" in text
    uncommented = text[text.index("# conserved:") :].replace("# conserved", "conserved").replace("#   ", "  ")
    assert set(yaml.safe_load(uncommented)["conserved"]) == {"u", "growing"}


@pytest.mark.parametrize(
    ("boundaries", "stretch", "expected", "why"),
    [
        ({"x": "periodic", "y": "wall"}, 1, {"roll": True}, "the axes 0 (from 0)"),
        ("open", 1, {"roll": False}, "no axis is periodic"),
        ("periodic", 3, {"roll": True, "permute": False}, "rougher along one"),
    ],
)
def test_symmetries_that_data_do_not_have_are_not_suggested(tmp_path, boundaries, stretch, expected, why):
    values, text = write(tmp_path, {"u": waves(COUNT, 0.01, stretch=stretch)}, boundaries)
    assert values["symmetries"] == expected
    assert why in text
    if boundaries != "periodic":
        assert "conserved:" not in text


def test_axes_of_other_lengths_are_not_exchanged(tmp_path):
    axes = {"x": AXIS, "y": np.arange(8) / 8}
    path = lola.write_well(
        tmp_path, "mine", {"u": waves(COUNT, 0.01)[..., :8]}, axes=axes, boundaries="periodic"
    )
    text = describe_dataset(str(path), False, lambda _: None).read_text()
    assert yaml.safe_load(text)["symmetries"]["permute"] is False


@pytest.mark.parametrize(("speed", "stride"), [(0.05, 1), (0.01, 4), (0.005, 4), (0.1, 1)])
def test_the_stride_is_where_states_differ_with_states_left(tmp_path, speed, stride):
    """Of 65 states 16 are left at a stride of 4; the change in s steps is 2 sin(pi speed s)."""
    values, text = write(tmp_path, {"u": waves(COUNT, speed)})
    assert values["stride"] == stride
    first = 2 * np.sin(np.pi * speed)
    assert f"change by {first:.2g} in 1" in text
    ends = [each[0] for each in values["ranges"]]
    assert ends == ([1, 13, 37] if stride == 4 else [1, 13, 39])


def test_constants_over_a_decade_are_seen_as_logarithms(tmp_path):
    scalars = {
        "Re": np.geomspace(10, 1000, COUNT),
        "gamma": np.linspace(1, 2, COUNT),
        "shift": np.arange(COUNT),
    }
    values, text = write(tmp_path, {"u": waves(COUNT, 0.01)}, scalars=scalars, splits=["train"] * COUNT)
    assert values["log_parameters"] == ["Re"]
    assert "gamma 1 to 2" in text


def test_other_roles_and_names_that_yaml_takes_for_others_survive(tmp_path):
    arrays = {"no": waves(COUNT, 0.01), "drive": np.ones((COUNT, STEPS))}
    values, _ = write(tmp_path, arrays, axes=("x", "z"), constants={"mask": np.ones((CELLS, CELLS))})
    assert list(values["fields"]) == ["no", "mask", "drive"]
    system, _ = find_system(str(tmp_path / "mine"), Datasets(tmp_path))
    assert [field.role for field in system.fields] == ["state", "constant", "scalar"]
    assert system.shown == "no"


@pytest.mark.parametrize("axes", [1, 3])
def test_grids_of_other_dimensions(tmp_path, axes):
    values, _ = write(tmp_path, {"u": waves(COUNT, 0.05, axes)[:, :20]}, axes=("x", "y", "z")[:axes])
    assert values["symmetries"]["roll"] is True
    assert values["symmetries"].get("permute", True) is True


def test_a_description_is_replaced_on_demand_alone(tmp_path, monkeypatch, capsys):
    def run(*options):
        monkeypatch.setattr(sys, "argv", ["describe.py", *options])
        runpy.run_path(str(ROOT / "experiments" / "describe.py"), run_name="__main__")

    path = lola.write_well(
        tmp_path, "mine", {"u": waves(COUNT, 0.1)}, axes={"x": AXIS, "y": AXIS}, boundaries="periodic"
    )
    run(str(path))
    draft = (path / "system.yaml").read_text()
    out = capsys.readouterr().out
    assert draft in out
    assert out.endswith(f"description: {path}/system.yaml\n")
    (path / "system.yaml").write_text("stride: 2\n")
    with pytest.raises(
        SystemExit, match=r"describe.py: error: .*/system.yaml exists; edit it, or give --overwrite"
    ):
        run(str(path))
    assert (path / "system.yaml").read_text() == "stride: 2\n"
    run(str(path), "--overwrite")
    assert (path / "system.yaml").read_text() == draft


def test_what_is_no_dataset_is_refused_in_one_line(tmp_path):
    path = lola.write_well(
        tmp_path, "mine", {"u": waves(COUNT, 0.1)}, axes={"x": AXIS, "y": AXIS}, boundaries="periodic"
    )
    for folder, message in (
        (tmp_path, "did you mean .*/mine"),
        (path / "data", "did you mean .*/mine"),
        (tmp_path / "min", "does not exist; did you mean .*/mine"),
    ):
        with pytest.raises(MissingDataError, match=message):
            describe_dataset(str(folder), False, print)
    with open(next((path / "data" / "train").iterdir()), "r+b") as file:
        file.truncate(100)
    with pytest.raises(DataError, match="cannot be opened as HDF5"):
        describe_dataset(str(path), False, print)
    assert not (path / "system.yaml").exists()


def test_files_and_trajectories_may_be_left_out(tmp_path):
    """Those that errors name."""
    arrays = {"u": waves(COUNT, 0.1)}
    path = lola.write_well(
        tmp_path, "mine", arrays, axes={"x": AXIS, "y": AXIS}, boundaries="periodic", splits=["train"] * COUNT
    )
    (path / "data" / "train" / "bad.hdf5").write_text("text")
    with pytest.raises(DataError, match=r"leave it out with --exclude bad\.hdf5"):
        describe_dataset(str(path), False, print)
    name = next((path / "data" / "train").glob("mine*")).name
    describe_dataset(str(path), False, print, ("bad.hdf5", f"{name}#0"))
    assert f"of {COUNT - 1} training trajectories" in (path / "system.yaml").read_text()


def gaps(path, change):
    """Set values of a dataset's field `u`, and describe it."""
    for file in sorted((path / "data").rglob("*.hdf5")):
        with h5py.File(file, "r+") as opened:
            values = opened["t0_fields/u"][()]
            change(values)
            opened["t0_fields/u"][...] = values
    text = describe_dataset(str(path), False, lambda _: None).read_text()
    return yaml.safe_load(text), text


def sea(folder, **options):
    return lola.write_well(
        folder,
        "sea",
        {"u": 5 + waves(COUNT, 0.05), "v": waves(COUNT, 0.05)},
        axes={"x": AXIS, "y": AXIS},
        boundaries="periodic",
        **options,
    )


LAND = np.zeros((CELLS, CELLS), bool)
LAND[2:6, 3:7] = True


def dry(values):
    values[:, :, LAND] = np.nan


def test_a_constant_field_that_says_where_values_are_missing_is_the_mask(tmp_path):
    depth = np.where(LAND, 0, 1 + AXIS)
    path = sea(tmp_path, constants={"depth": depth, "coast": np.roll(LAND, 1) * 1.0})
    values, text = gaps(path, dry)
    assert values["mask"] == {"field": "depth", "outside": 0}
    assert "u: {}  # 3 to 7; 0.062 of its values are missing" in text.replace("3.0", "3").replace("7.0", "7")
    assert (
        "Values are missing (nan, infinite or a fill value) of u,\n# in 2 of 2 trajectories: sea/train/"
        in text
    )
    assert values["bounds"] == {"u": [0, None]}
    split = lola.open_well(tmp_path, "sea", "train")
    assert split.read(0, 0, 5).isfinite().all()


def test_a_mask_is_asked_for_where_no_field_says_where_values_are_missing(tmp_path):
    values, text = gaps(sea(tmp_path), dry)
    assert "mask" not in values
    assert "Always in the same cells, such as land: store a scalar field" in text


def test_values_that_are_missing_in_cells_that_change_are_named_with_their_trajectory(tmp_path):
    def drop(values):
        values[0, 0, 2, 3] = 9.97e36

    path = sea(tmp_path, constants={"depth": np.where(LAND, 0, 1 + AXIS)}, splits=["train"] * COUNT)
    values, text = gaps(path, drop)
    assert "mask" not in values
    name = next((path / "data" / "train").iterdir()).name
    assert f"in 1 of {COUNT} trajectories: sea/train/{name}#0\n" in text
    assert "In cells that change with time: u.\n# Remove the field above, or leave the traj" in text


def test_a_field_without_any_value_is_to_be_removed(tmp_path):
    def clear(values):
        values[:] = np.nan

    values, text = gaps(sea(tmp_path), clear)
    assert "u: {}  # remove it; 1 of its values are missing" in text
    assert values["shown"] == "v"
    assert values["bounds"] == {}
