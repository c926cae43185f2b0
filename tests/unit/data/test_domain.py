"""Cells outside of the domain: not finite in the files, and left out of all that is computed."""

import itertools

import h5py
import numpy as np
import pytest
import torch
from oceans import DESCRIPTION, GRID, LAND, MEAN, STD, STEPS, fields, system_of, write_ocean

from lola.core.errors import ConfigError, DataError
from lola.data.domain import inside, outside
from lola.data.faults import merged
from lola.data.systems import System
from lola.data.transforms import Standardisation
from lola.data.well.scan import Scan
from lola.data.well.splits import open_split
from lola.data.well.windows import WellWindows
from lola.training.stream import BatchStream, fixed_batches


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ocean(tmp_path_factory.mktemp("ocean"))


@pytest.fixture(scope="module")
def ocean(root):
    return system_of(root, mean=MEAN, std=STD)


def test_masked_values_are_the_means_of_their_channels(root, ocean):
    split = open_split(root, ocean, "train")
    x = split.read(1, 1, 5, 2)
    truth = fields(1)
    assert torch.equal(x[0][:, ~LAND], torch.from_numpy(truth["height"][1:5:2][:, ~LAND]))
    assert torch.equal(x[2][:, ~LAND], torch.from_numpy(truth["wind"][1:5:2, ..., 1][:, ~LAND]))
    torch.testing.assert_close(x[0][:, LAND], torch.full((2, 4), float(np.exp(0.3))))
    assert torch.equal(x[3], torch.from_numpy(LAND.astype("float32")).expand(2, -1, -1))
    standard = Standardisation(ocean).forward(x)
    assert np.abs(standard[:3].numpy()[..., LAND]).max() < 1e-6
    buffer = np.empty((4, 4, *GRID), np.float32)
    split.read_into(buffer, 1, 1, 5)
    assert np.array_equal(buffer[:, ::2], x.numpy())


def test_what_is_not_finite_in_the_domain_is_still_an_error(root, tmp_path):
    copy = write_ocean(tmp_path)
    with h5py.File(copy / "ocean/data/test/a.hdf5", "r+") as file:
        file["t0_fields/height"][0, 3, 3, 3] = np.nan
    for statistics in ({}, {"mean": MEAN, "std": STD}):
        with pytest.raises(DataError, match=r"a\.hdf5#0 .*height is not finite"):
            open_split(copy, system_of(root, **statistics), "test").read(0, 0, STEPS)


def test_a_mask_of_everything_is_an_error(tmp_path):
    root = write_ocean(tmp_path, np.ones(GRID, bool))
    with pytest.raises(DataError, match=r"land is 1 everywhere.*correct mask\.outside"):
        open_split(root, system_of(root), "train").read(0, 0, 1)


def test_files_and_states_have_the_same_cells_outside(root, ocean):
    """Also where the field of the mask has values next to the one outside."""
    values = np.array([[1, 1 + 5e-4, 0.99, 0]] * 2, dtype=np.float32)
    x = torch.zeros(4, 1, 2, 4)
    x[ocean.channels.index("land")] = torch.from_numpy(values)
    cells = inside(x, ocean)
    assert cells is not None
    assert outside(values, ocean.mask)[0].tolist() == [True, True, False, False]
    assert torch.equal(~cells[0, 0], torch.from_numpy(outside(values, ocean.mask)))


def test_statistics_are_of_the_domain(root):
    split = open_split(root, system_of(root), "train")
    x = split.read(0, 0, STEPS)
    assert x.isfinite().all()
    row = Scan(split, 0, block=4).row()
    physical, transformed = merged([row])
    assert row["faults"] == "[]"
    height, wind = (fields(0)[name][:, ~LAND].astype(float) for name in ("height", "wind"))
    assert physical.count == STEPS * (~LAND).sum()
    expected = [height, wind[..., 0], wind[..., 1], np.zeros(1)]
    np.testing.assert_allclose(physical.mean, [each.mean() for each in expected], atol=1e-12)
    np.testing.assert_allclose(physical.std, [each.std() for each in expected], atol=1e-12)
    np.testing.assert_allclose(physical.maximum, [each.max() for each in expected])
    assert transformed.mean[0] == pytest.approx(np.log(height).mean())


def test_batches_say_which_cells_are_valid(root, ocean):
    windows = WellWindows(open_split(root, ocean, "train"), Standardisation(ocean), 2, symmetries="plain")
    stream = BatchStream(windows, seed=0, batch_size=7)
    flipped = 0
    for batch, _ in itertools.chain(
        stream.batches(0, 3), fixed_batches(windows, seed=0, samples=8, batch_size=3)
    ):
        assert batch.valid.shape == (len(batch), 1, 1, *GRID)
        for states, valid in zip(batch.states, batch.valid[:, 0, 0], strict=True):
            land = LAND[::-1] if valid[0, 1] else LAND
            flipped += bool(valid[0, 1])
            assert np.array_equal(~valid, land)
            assert torch.equal(states[3, 0] == 1, ~valid)
    assert flipped > 0
    part = batch.rows(0, 1)
    assert torch.equal(part.valid, batch.valid[:1])


def test_without_a_mask_there_is_none(root):
    plain = System("ocean", ("ocean",), 2, system_of(root).fields[1:2], mean=(0.0, 0.0), std=(1.0, 1.0))
    windows = WellWindows(open_split(root, plain, "train"), Standardisation(plain), 2)
    assert BatchStream(windows, seed=0, batch_size=2).batch(0)[0].valid is None
    assert len(windows.read(0, ())) == 2
    assert inside(torch.zeros(2, 1, *GRID), plain) is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("{field: height, outside: 1}", "mask.field names height; the .* constant in time are land"),
        ("{field: sea, outside: 1}", "mask.field names sea"),
        ("{field: land}", "mask.outside: field required"),
        ("{field: land, outside: .nan}", "mask.outside: input should be a finite number"),
        (
            "{field: land, outside: 1, inside: 0}",
            "mask.inside is no key of a description; known are field, outside",
        ),
    ],
)
def test_faulty_masks_are_named(root, mask, message):
    text = DESCRIPTION.replace("{field: land, outside: 1}", mask)
    with pytest.raises(ConfigError, match=f"ocean.yaml: {message}"):
        system_of(root, text)


def test_the_mask_is_part_of_the_identity(root):
    masked, plain = system_of(root), system_of(root, DESCRIPTION.split("mask:")[0])
    assert masked.identity != plain.identity
    assert System.from_json(masked.to_json()) == masked
