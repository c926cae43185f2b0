"""The Well's own reader, against which ours is compared."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lola.data.systems import System
from lola.data.well.datasets import Datasets
from lola.data.well.splits import WellSplit


def compare(
    root: Path,
    dataset: str,
    split: str = "train",
    start: int = 2,
    length: int = 3,
    stride: int = 2,
    system: System | None = None,
) -> WellSplit:
    """Compare every trajectory's window with The Well's, and return our split; by default, of all fields."""
    data = pytest.importorskip("the_well.data")
    with warnings.catch_warnings():  # The Well's, of boundaries that are not ends of an axis
        warnings.simplefilter("ignore")
        return _compare(data, root, dataset, split, start, length, stride, system)


def _compare(
    data: Any,
    root: Path,
    dataset: str,
    split: str,
    start: int,
    length: int,
    stride: int,
    system: System | None,
) -> WellSplit:
    theirs = data.WellDataset(
        path=str(root / dataset),
        well_split_name=split,
        n_steps_input=1,
        n_steps_output=length - 1,
        min_dt_stride=stride,
        max_dt_stride=stride,
        normalize_time_grid=False,
    )
    system = system or Datasets(root).infer(dataset)
    ours = Datasets(root).open(system, split)
    stop = start + (length - 1) * stride + 1
    starts = [each.steps - (length - 1) * stride for each in ours.trajectories]
    assert len(theirs) == sum(starts)
    names = [name for order in range(3) for name in theirs.metadata.field_names[order]]
    constant = [name for order in range(3) for name in theirs.metadata.constant_field_names[order]]
    expected = (*names, *constant, *theirs.metadata.scalar_names)
    assert len(system.channels) == len(expected)
    if theirs.metadata.grid_type == "cartesian":  # else components have the names of other axes
        assert system.channels == expected
    assert list(ours.constants) == theirs.metadata.constant_scalar_names
    assert ours.grid == theirs.metadata.spatial_resolution
    for i in range(len(ours.trajectories)):
        sample = theirs[sum(starts[:i]) + start]
        window = ours.read(i, start, stop, stride)
        fields = torch.cat([sample["input_fields"], sample["output_fields"]]).movedim(-1, 0)
        torch.testing.assert_close(window[: len(names)], fields, rtol=0, atol=0)
        if constant:
            given = window[len(names) : len(names) + len(constant)]
            expected = sample["constant_fields"].movedim(-1, 0)[:, None].expand_as(given)
            torch.testing.assert_close(given, expected, rtol=0, atol=0)
        if theirs.metadata.scalar_names:
            scalars = torch.cat([sample["input_scalars"], sample["output_scalars"]]).float().T
            uniform = window[len(names) + len(constant) :]
            torch.testing.assert_close(
                uniform, scalars.reshape(*scalars.shape, *[1] * len(ours.grid)).expand_as(uniform)
            )
        constants = sample["constant_scalars"].double().numpy() if ours.constants else []
        np.testing.assert_allclose(ours.trajectories[i].scalars, constants)
        np.testing.assert_array_equal(ours.trajectories[i].boundary, sample["boundary_conditions"].numpy())
        times = torch.cat([sample["input_time_grid"], sample["output_time_grid"]]).numpy()
        np.testing.assert_array_equal(ours.axis(i, "time")[start:stop:stride], times)
        grid = np.stack(np.meshgrid(*ours.coordinates, indexing="ij"), axis=-1)
        np.testing.assert_array_equal(grid, sample["space_grid"].numpy())
    return ours
