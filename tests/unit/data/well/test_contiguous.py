import h5py
import numpy as np
import pytest
import torch

from lola.core.errors import DataError
from lola.data.description import EULER
from lola.data.transforms import Standardisation
from lola.data.well import contiguous
from lola.data.well.splits import open_split
from lola.data.well.windows import WellWindows
from lola.training.order import OrderConfig
from lola.training.stream import BatchStream


@pytest.fixture
def own(well, tmp_path):
    """A copy of the dataset that a test may change."""
    for path in well.rglob("train/*.hdf5"):
        copy = tmp_path / path.relative_to(well)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path


def train_files(root):
    return sorted(root.rglob("train/*.hdf5"))


@pytest.mark.parametrize("piece", [1, 5000, 2**20])
def test_blocks_are_what_reading_gives(well, monkeypatch, piece):
    monkeypatch.setattr(contiguous, "PIECE_BYTES", piece)
    split = open_split(well, EULER, "train")
    for i, start, stop in ((0, 0, 21), (3, 4, 5), (2, 7, 20)):
        buffer = np.full((5, 25, 16, 16), np.nan, dtype=np.float32)
        split.read_into(buffer[:, 2 : 2 + stop - start], i, start, stop)
        np.testing.assert_array_equal(buffer[:, 2 : 2 + stop - start], split.read(i, start, stop))
        assert np.isnan(buffer[:, :2]).all()
        assert np.isnan(buffer[:, 2 + stop - start :]).all()


def test_fields_in_chunks_are_read_as_well(own):
    for path in train_files(own):
        with h5py.File(path, "r+") as file:
            values, attributes = file["t0_fields/density"][:], dict(file["t0_fields/density"].attrs)
            del file["t0_fields/density"]
            field = file["t0_fields"].create_dataset(
                "density", data=values, chunks=(1, 4, 8, 8), compression="gzip"
            )
            field.attrs.update(attributes)
    split = open_split(own, EULER, "train")
    buffer = np.empty((5, 9, 16, 16), dtype=np.float32)
    split.read_into(buffer, 1, 3, 12)
    np.testing.assert_array_equal(buffer, split.read(1, 3, 12))


@pytest.mark.parametrize("symmetries", [None, "plain"])
def test_streamed_windows_are_those_that_are_read_alone(well, symmetries):
    windows = WellWindows(open_split(well, EULER, "train"), Standardisation(EULER), 3, 4, symmetries)
    memory = 2 * 3 * 12 * windows.state_bytes / 1e9
    stream = BatchStream(windows, seed=3, batch_size=6, order=OrderConfig(block=4, memory=memory))
    for step, (batch, keys) in enumerate(stream.batches(0, 9)):
        for i, key in enumerate(keys):
            n = 6 * step + i
            owner = stream.order.at(n)
            states, parameters = windows.read(int(owner.windows[n - owner.first]), (*key, "augment"))
            torch.testing.assert_close(batch.states[i], states, rtol=1e-6, atol=1e-6)
            assert torch.equal(batch.parameters[i], parameters)


@pytest.mark.parametrize(
    ("value", "message"),
    [(-2, "density holds -2"), (np.inf, "density is not finite in states 0 to 20"), (None, "truncated")],
)
def test_errors_of_files_reach_the_stream_and_name_them(own, value, message):
    windows = WellWindows(open_split(own, EULER, "train"), Standardisation(EULER), 2)
    path = train_files(own)[0]
    if value is None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        with h5py.File(path, "r+") as file:
            file["t0_fields/density"][1, 7, 0, 0] = value
    with pytest.raises(DataError, match=f"{path.name}.*{message}") as error:
        list(BatchStream(windows, seed=0, batch_size=8).batches(0, 10))
    assert "\n" not in str(error.value)
    assert value is None or f"{path.name}#1" in str(error.value)
