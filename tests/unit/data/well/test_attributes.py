"""Files of other writers: how they store texts and flags, kinds of boundaries, dtypes, filters and locks."""

import errno

import h5py
import numpy as np
import pytest
import torch
from layouts import COUNT, STEPS, write_layout

from lola.core.errors import DataError, StorageError
from lola.data.hdf5 import list_files, open_hdf5
from lola.data.systems import Boundary
from lola.data.well.attributes import boundary, flag, flags, text, texts
from lola.data.well.datasets import Datasets


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "anything" / "data" / "train" / "a.hdf5"
    write_layout(path, 2)
    return path


def opened(path):
    datasets = Datasets(path.parents[3])
    return datasets.open(datasets.infer("anything"), "train")


@pytest.mark.parametrize("kind", [lambda names: np.array(names, "S"), lambda names: np.array(names, object)])
def test_texts_are_read_however_they_are_stored(path, kind):
    """Bytes of fixed length, and strings of variable length in arrays of one."""
    before, changed = opened(path), 0
    with h5py.File(path, "r+") as file:

        def change(_, each):
            nonlocal changed
            for name, value in list(each.attrs.items()):
                if name in ("bc_type", "field_names", "spatial_dims", "associated_dims"):
                    names = np.atleast_1d(value).astype(str).tolist()
                    stored = kind(names)
                    each.attrs.create(
                        name, stored, dtype=None if stored.dtype.kind == "S" else h5py.string_dtype()
                    )
                    changed += 1

        file.visititems(change)
    assert changed > 8
    after = opened(path)
    assert after.system == before.system
    np.testing.assert_array_equal(after.trajectories[0].boundary, before.trajectories[0].boundary)
    assert torch.equal(after.read(1, 0, STEPS), before.read(1, 0, STEPS))


@pytest.mark.parametrize("false", ["False", b"false", np.bytes_("F"), 0, np.int8(0), np.array([0]), 0.0])
def test_flags_are_read_however_they_are_stored(path, false):
    before = opened(path)
    with h5py.File(path, "r+") as file:
        for group in ("scalars", "t0_fields", "t1_fields", "t2_fields"):
            for array in file[group].values():
                for name in ("sample_varying", "time_varying"):
                    array.attrs[name] = "True" if array.attrs[name] else false
        file["t0_fields/profile"].attrs["dim_varying"] = np.array([b"True", b"False"])
    after = opened(path)
    assert after.system == before.system
    assert after.constants == before.constants
    assert torch.equal(after.read(COUNT - 1, 0, STEPS), before.read(COUNT - 1, 0, STEPS))


def test_what_is_no_flag_and_no_text():
    assert flags(["yes", "no", "1", "F"]) == [True, False, True, False]
    assert texts(h5py.Empty("S1")) == []
    assert text(np.array([b"WALL\0"])) == "WALL"
    for function, value in (
        (flag, "perhaps"),
        (flag, 2),
        (flag, [True, True]),
        (text, 3),
        (text, ["a", "b"]),
    ):
        with pytest.raises(ValueError, match="is n"):
            function(value)


def test_kinds_of_boundaries(path):
    for kind, names in {
        Boundary.WALL: ("WALL", "No-Slip", "reflective", "dirichlet_bc", "Neumann"),
        Boundary.OPEN: ("Outflow", "inflow", "ABSORBING", "non-reflecting"),
        Boundary.PERIODIC: ("Periodic", "cyclic", "periodic boundary condition"),
    }.items():
        assert all(boundary(name, "x") is kind for name in names)
    with h5py.File(path, "r+") as file:
        file["boundary_conditions/x_periodic"].attrs["bc_type"] = np.bytes_("twisted")
    with pytest.raises(
        DataError, match=r"a\.hdf5: bc_type of /boundary_conditions/x_periodic is 'twisted'"
    ) as error:
        opened(path)
    assert "periodic" in str(error.value).lower()
    assert "remove" not in str(error.value)
    assert "tuple" not in str(error.value)


def test_a_boundary_on_an_axis_that_does_not_exist(path):
    with h5py.File(path, "r+") as file:
        file["boundary_conditions/x_periodic"].attrs["associated_dims"] = ["r"]
    with pytest.raises(DataError, match=r"x_periodic is on r, and the axes are x, y; correct"):
        opened(path)


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float64, np.float16, np.bool_])
def test_numbers_of_any_dtype(path, dtype):
    with h5py.File(path, "r+") as file:
        attributes = dict(file["t0_fields/density"].attrs)
        values = (10 * file["t0_fields/density"][:]).astype(dtype)
        del file["t0_fields/density"]
        file["t0_fields"].create_dataset("density", data=values).attrs.update(attributes)
    split = opened(path)
    found = np.empty((len(split.system.channels), STEPS, *split.grid), np.float32)
    split.read_into(found, 1, 0, STEPS)
    number = split.system.channels.index("density")
    np.testing.assert_array_equal(found[number], values[1].astype(np.float32))
    np.testing.assert_array_equal(split.read(1, 0, STEPS)[number].numpy(), values[1].astype(np.float32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((COUNT, STEPS, 6, 5), complex), "has density of complex numbers; .*store its parts as two"),
        (np.full((COUNT, STEPS, 6, 5), b"abc"), r"has density of \|S3, not numbers; name the fields to use"),
    ],
)
def test_fields_that_are_not_real_numbers(path, values, message):
    """They are named, and a description that names the others makes the data usable."""
    from lola.data.well.find import find_system

    with h5py.File(path, "r+") as file:
        attributes = dict(file["t0_fields/density"].attrs)
        del file["t0_fields/density"]
        file["t0_fields"].create_dataset("density", data=values).attrs.update(attributes)
    with pytest.raises(DataError, match=message) as error:
        opened(path)
    assert "key fields of system.yaml" in str(error.value)
    (path.parents[2] / "system.yaml").write_text("fields: {velocity: {}}\n")
    system, datasets = find_system(str(path.parents[2]), Datasets(path.parents[3]))
    assert datasets.open(system, "train").read(0, 0, 2).shape == (2, 2, 6, 5)


def test_constants_that_are_no_numbers(path):
    with h5py.File(path, "r+") as file:
        del file["scalars/viscosity"]
        file["scalars/viscosity"] = "water"
        file["scalars/viscosity"].attrs.update(sample_varying=False, time_varying=False)
    with pytest.raises(DataError, match=r"the constant viscosity is object, and networks take real numbers"):
        opened(path)


@pytest.mark.parametrize(
    ("scalar", "attribute"),
    [("viscosity", "time_varying"), ("viscosity", "sample_varying"), ("drive", "time_varying")],
)
def test_a_scalar_that_does_not_say_whether_it_varies_is_named(path, scalar, attribute):
    with h5py.File(path, "r+") as file:
        del file[f"scalars/{scalar}"].attrs[attribute]
    with pytest.raises(DataError, match=rf"has a scalar {scalar} without the attribute {attribute}; set it"):
        opened(path)


def test_a_filter_that_is_not_installed_is_named(path):
    with h5py.File(path, "r+") as file:
        attributes = dict(file["t0_fields/density"].attrs)
        del file["t0_fields/density"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, STEPS, 6, 5))
        properties.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        array = h5py.h5d.create(
            file["t0_fields"].id,
            b"density",
            h5py.h5t.NATIVE_FLOAT,
            h5py.h5s.create_simple((COUNT, STEPS, 6, 5)),
            properties,
        )
        for index in range(COUNT):
            array.write_direct_chunk((index, 0, 0, 0), b"compressed", 0)
        file["t0_fields/density"].attrs.update(attributes)
    with pytest.raises(
        DataError, match=r"density is compressed with HDF5 filter 32008 \(bitshuffle\).*hdf5plugin"
    ) as e:
        opened(path)
    assert "remove" not in str(e.value)


def test_a_lock_that_is_refused_whatever_is_tried(path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(
            errno.EINVAL,
            "Unable to synchronously open file (unable to lock file, errno = 22, error message = ''",
        )

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(StorageError, match=r"cannot be locked .*HDF5_USE_FILE_LOCKING=FALSE") as error:
        open_hdf5(path)
    assert "fetch" not in str(error.value)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_is_read_where_there_are_no_locks(path, monkeypatch, number):
    genuine = h5py.File

    def refuse(path, mode, locking=None):
        if locking is None:
            text = (
                f"Unable to synchronously open file (unable to lock file, errno = {number}, error message ="
            )
            raise OSError(number, text)
        return genuine(path, mode, locking=locking)

    monkeypatch.setattr(h5py, "File", refuse)
    with open_hdf5(path) as file:
        assert file.attrs["n_trajectories"] == COUNT


def test_a_file_that_is_still_being_written(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.swmr_mode = True
        file.flush()
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is being written, or .* without closing it; .*h5clear -s a\.hdf5"):
        open_hdf5(path)


def test_files_that_are_not_data_are_left_out(path):
    folder = path.parent
    for name in ("README.hdf5", "._a.hdf5", ".a.hdf5", "b.tmp.hdf5", "~a.hdf5", "a.part.h5", "notes.txt"):
        (folder / name).write_text("text")
    for name in ("__pycache__", "old.hdf5", "_build.hdf5"):
        (folder / name).mkdir()
    assert list_files(folder) == [path]
    assert len(opened(path).trajectories) == COUNT


@pytest.mark.parametrize(
    ("content", "found"), [(b"plain text", "begins with b'plain te'"), (b"", "is empty")]
)
def test_a_file_that_is_no_hdf5_is_named_with_what_it_is(path, content, found):
    (path.parent / "b.hdf5").write_bytes(content)
    with pytest.raises(
        DataError, match=rf"b\.hdf5 cannot be opened as HDF5 \(it {found}\); leave it out with"
    ):
        opened(path)
