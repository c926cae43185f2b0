import dataclasses
import errno
import os
import shutil

import h5py
import layouts
import pytest

from lola.core.errors import ConfigError, DataError, MissingDataError
from lola.data.well.datasets import Datasets
from lola.data.well.find import find_system
from lola.data.well.splits import open_well_file


@pytest.fixture
def root(tmp_path):
    tmp_path = tmp_path / "a" / "b" / "datasets"  # others' datasets are not near
    for name in ("mine", "other"):
        for split in ("train", "valid", "test"):
            layouts.write_layout(tmp_path / name / "data" / split / "a.hdf5", 2)
    return tmp_path


def test_a_name_a_folder_and_a_description_are_one_system(root):
    expected, datasets = find_system("mine", Datasets(root))
    assert expected.name == "mine"
    assert datasets.root == root
    assert find_system(str(root / "mine"), Datasets(root / "elsewhere")) == (expected, datasets)
    (root / "mine" / "system.yaml").write_text("stride: 2\n")
    for reference in ("mine", str(root / "mine"), str(root / "mine" / "system.yaml")):
        system, datasets = find_system(reference, Datasets(root))
        assert (system.stride, datasets.root) == (2, root)
        assert dataclasses.replace(system, stride=1) == expected


def test_a_description_elsewhere_names_its_datasets(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "both.yaml"
    path.write_text("name: both\ndatasets: [mine, other]\n")
    system, datasets = find_system(str(path), Datasets(root))
    split = datasets.open(system, "train")
    assert {trajectory.id.split("/")[0] for trajectory in split.trajectories} == {"mine", "other"}


def test_a_known_system_needs_no_files(tmp_path):
    system, datasets = find_system("euler", Datasets(tmp_path))
    assert (system.name, datasets.root) == ("euler", tmp_path)


def test_a_description_beside_the_data_comes_before_that_of_the_package(root):
    for name in ("shear_flow", "rayleigh_benard"):
        shutil.copytree(root / "mine", root / name)
    with pytest.raises(DataError, match=r"no field \S+/tracer; .*describe.py, if these data are not of sh"):
        Datasets(root).open(find_system("shear_flow", Datasets(root))[0], "train")
    for name in ("shear_flow", "rayleigh_benard"):
        (root / name / "system.yaml").write_text("stride: 2\n")
    found, datasets = find_system("shear_flow", Datasets(root))
    assert (found.stride, found.name, datasets.root) == (2, "shear_flow", root)
    assert found == find_system(str(root / "shear_flow"), Datasets(root))[0]
    assert "density" in datasets.open(found, "train").system.channels
    with pytest.raises(ConfigError, match=rf"is a system of the paper, and {root}/rayl\S+ describes another"):
        find_system("rayleigh_benard", Datasets(root))


def test_the_description_is_part_of_the_fingerprint(root):
    before = Datasets(root).open(find_system("mine", Datasets(root))[0], "train").fingerprint
    (root / "mine" / "system.yaml").write_text("log_parameters: []\nsymmetries: {flips: [0]}\n")
    assert Datasets(root).open(find_system("mine", Datasets(root))[0], "train").fingerprint != before


@pytest.mark.parametrize("place", ["mine", "mine/system.yaml", "both.yaml"])
def test_datasets_that_a_description_names_must_exist(root, place):
    for name in ("mine/system.yaml", "both.yaml"):
        (root / name).write_text("name: mine\ndatasets: [mine, othr]\n")
    reference = place if place == "mine" else str(root / place)
    with pytest.raises(
        ConfigError, match=r"yaml: datasets names othr, which \S+ does not hold; did you mean other\?$"
    ):
        find_system(reference, Datasets(root))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "mien",
            r"--system mien is no known system, dataset's folder or description file; did you mean mine\?",
        ),
        ("zzz", r"--system zzz is no .* known systems euler, .*, or of the datasets in \S+: mine, other$"),
        ("{root}/mien", "mien does not exist; did you mean .*/mine?"),
        ("{root}", r"is no dataset: it holds mine, other; did you mean \S+/mine or \S+/other"),
        ("{root}/mine/data", r"is no dataset: it holds test, train, valid; did you mean \S+/mine\?"),
        ("{root}/mine/data/train", r"is no dataset: it holds a.hdf5; did you mean \S+/mine\?"),
        ("{root}/mine/data/train/a.hdf5", r"a.hdf5 is a file; name the folder of its dataset, .* \S+/mine$"),
        ("{root}/nothing.yaml", "nothing.yaml does not exist"),
    ],
)
def test_what_is_no_system_is_named_with_what_was_found(root, reference, message):
    with pytest.raises((ConfigError, MissingDataError), match=message):
        find_system(reference.format(root=root), Datasets(root))


def test_constants_must_be_in_the_order_in_which_networks_take_them(root):
    with h5py.File(root / "mine" / "data" / "test" / "a.hdf5", "r+") as file:
        names = file["scalars"].attrs["field_names"]
        file["scalars"].attrs["field_names"] = list(names[::-1])
    system, datasets = find_system("mine", Datasets(root))
    assert system.constants == ("viscosity", "seedling")
    message = r"a.hdf5 \(mine\) has the constants seedling, viscosity, but mine has viscosity, seedling, in"
    for read in (
        lambda: datasets.open(system, "test"),
        lambda: open_well_file(root / "mine" / "data" / "test" / "a.hdf5", system),
    ):
        with pytest.raises(DataError, match=message):
            read()


def test_data_a_level_off_or_elsewhere_are_named(root):
    system, _ = find_system("mine", Datasets(root))
    (root / "empty").mkdir()
    for place in (root / "empty", root / "mine", root / "mine" / "data", root.parent, root / "missing"):
        with pytest.raises(MissingDataError, match=rf"\(it .*\); .* or name {root} with --well"):
            Datasets(place).open(system, "train")


def test_a_split_alone_is_a_dataset(root):
    for split in ("train", "valid"):
        shutil.rmtree(root / "mine" / "data" / split)
    system, datasets = find_system("mine", Datasets(root))
    assert len(datasets.open(system, "test").trajectories) == 3


def test_a_corrupt_file_is_named_when_it_is_opened(root):
    expected, _ = find_system("mine", Datasets(root))
    (root / "mine" / "data" / "train" / "0.hdf5").write_text("not data")
    system, datasets = find_system("mine", Datasets(root))
    assert system == expected
    with pytest.raises(DataError, match=r"0\.hdf5 cannot be opened as HDF5 .*--exclude 0\.hdf5"):
        datasets.open(system, "train")
    (root / "mine" / "data" / "train" / "a.hdf5").unlink()
    with pytest.raises(DataError, match=r"0\.hdf5 cannot be opened as HDF5"):
        find_system("mine", Datasets(root))


def test_folders_that_may_not_be_read_hold_nothing(root, monkeypatch):
    """Such as `lost+found`, next to what was looked for in vain."""
    system, _ = find_system("mine", Datasets(root))
    (root.parent / "lost+found").mkdir()
    (root / "lost+found").mkdir()
    stat = os.stat

    def refuse(path, *arguments, **options):
        if "lost+found/" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(MissingDataError, match=rf"or name {root} with --well"):
        Datasets(root.parent).open(system, "train")
    with pytest.raises(ConfigError, match=r"did you mean mine\?"):
        find_system("mien", Datasets(root))
    with pytest.raises(MissingDataError, match=r"it holds lost\+found, mine, other; did you mean"):
        find_system(str(root), Datasets(root))


def test_a_folder_of_a_described_dataset_has_its_description(tmp_path, well):
    system, datasets = find_system(str(well / "euler_multi_quadrants_openBC"), Datasets(tmp_path))
    assert (system.name, system.datasets) == ("euler", ("euler_multi_quadrants_openBC",))
    assert system.transforms[0] == "log1p"
    assert datasets.open(system, "train").system == system


@pytest.mark.parametrize("described", [False, True])
def test_other_data_may_not_have_the_name_of_a_system_of_the_paper(tmp_path, described):
    layouts.write_layout(tmp_path / "euler" / "data" / "train" / "a.hdf5", 2)
    if described:
        (tmp_path / "euler" / "system.yaml").write_text("stride: 2\n")
    with pytest.raises(
        ConfigError, match=r"euler is the name of a system of the paper; give this one another"
    ):
        find_system(str(tmp_path / "euler"), Datasets(tmp_path))
    (tmp_path / "euler" / "system.yaml").write_text("name: mine\n")
    assert find_system(str(tmp_path / "euler"), Datasets(tmp_path))[0].name == "mine"
