"""Windows whose strides are drawn: of latents and of fields, read one by one and in batches."""

import json

import numpy as np
import pytest
import torch

from lola.data.description import EULER
from lola.data.latent_shards import describe_shards, shard_path, write_shard
from lola.data.latents import LatentSplit, LatentTrajectory, LatentWindows
from lola.data.strides import Strides
from lola.data.transforms import Standardisation
from lola.data.well.splits import open_split
from lola.data.well.windows import WellWindows
from lola.storage.stages import SCHEMA_VERSION

KEYS = [(0, "step", 0, i, "augment") for i in range(600)]


def test_strides_and_places_are_drawn_alike():
    strides = Strides(2, (1, 2, 4))
    assert strides.span(3) == 9
    first, drawn = strides.draw(3, KEYS)
    for stride, places in ((1, 7), (2, 5), (4, 1)):
        chosen = first[drawn == stride]
        assert set(chosen) == set(range(places))
        assert 140 < len(chosen) < 260
    again, _ = strides.draw(3, KEYS[7:8])
    assert again[0] == first[7]
    labels = strides.label(torch.ones(600, 2), drawn)
    assert labels.shape == (600, 3)
    np.testing.assert_allclose(labels[:, 2], np.log2(drawn) - 1)
    one = Strides(2)
    assert one.span(3) == 5
    assert [set(part) for part in one.draw(3, KEYS)] == [{0}, {2}]
    assert one.label(torch.ones(600, 2), drawn).shape == (600, 2)


@pytest.fixture
def latents(tmp_path):
    """Two trajectories whose states are their numbers."""
    path = shard_path(tmp_path, "train", 0)
    numbers = [np.arange(20.0) + 100 * i for i in range(2)]
    states = [np.tile(each[:, None, None], (1, 2, 4)).astype("float32") for each in numbers]
    write_shard(
        path, [LatentTrajectory(f"f#{i}", 0, np.full(3, i, "float32"), each) for i, each in enumerate(states)]
    )
    manifest = {
        "schema": SCHEMA_VERSION,
        "shape": [20, 2, 4],
        "parameters": 3,
        "splits": {"train": describe_shards([path])},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return LatentSplit(tmp_path, "train")


def batch_of(windows, numbers, keys):
    """A batch from a buffer that holds a span for each window."""
    buffer = windows.allocate(windows.span * len(numbers))
    for row, number in enumerate(numbers):
        trajectory, start = windows.numbering.locate(number)
        windows.load(buffer, row * windows.span, trajectory, start, start + windows.span)
    return windows.batch(buffer, windows.span * np.arange(len(numbers)), np.array(numbers), keys)


def test_latent_windows_have_the_stride_that_they_name(latents):
    windows = LatentWindows(latents, 3, 2, (1, 2, 4))
    assert len(windows) == 2 * 12
    numbers = list(range(24))
    batch = batch_of(windows, numbers, KEYS[:24])
    times = batch.states[:, 0, :, 0]
    strides = 2 * 2 ** batch.parameters[:, 3]
    assert set(strides.tolist()) == {1.0, 2.0, 4.0}
    assert torch.equal(times.diff(dim=1), strides[:, None].expand(-1, 2))
    starts = torch.tensor([windows.numbering.locate(number) for number in numbers]) @ torch.tensor([100, 1])
    assert (times[:, 0] >= starts).all()
    assert (times[:, 2] <= starts + 8).all()
    for row, number in enumerate(numbers):
        states, parameters = windows.read(number, KEYS[row])
        assert torch.equal(states, batch.states[row])
        assert torch.equal(parameters, batch.parameters[row])


def test_windows_of_fields_have_the_stride_that_they_name(well):
    split, standardise = open_split(well, EULER, "train"), Standardisation(EULER)
    windows = WellWindows(split, standardise, 2, 1, None, (1, 3))
    batch = batch_of(windows, [0, 5, 9, 2], KEYS[:4])
    strides = (2 ** batch.parameters[:, -1]).round().int().tolist()
    assert set(strides) == {1, 3}
    for row, (number, stride) in enumerate(zip([0, 5, 9, 2], strides, strict=True)):
        i, start = windows.numbering.locate(number)
        whole = standardise.forward(split.read(i, start, start + windows.span))
        pairs = [whole[:, [j, j + stride]] for j in range(windows.span - stride)]
        assert any(torch.equal(batch.states[row], pair) for pair in pairs)
        states, parameters = windows.read(number, KEYS[row])
        assert torch.equal(states, batch.states[row])
        assert torch.equal(parameters, batch.parameters[row])
        assert torch.equal(parameters[:-1], split.parameters(i))
