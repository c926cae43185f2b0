"""What reading states of the size of MHD_256, 0.47 GB each, takes in memory, of a sparse file of 7.5 GB."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from lola.data.well.writer import write_layout

GRID, STEPS = (256, 256, 256), 16
STATE = 7 * 4 * 256**3

PROGRAM = """
import resource, sys
from lola.data.well.datasets import Datasets
from lola.data.well.scan import ScannedFile, default_block
from lola.data.well.simulation_files import SimulationFile, simulation_files
from lola.distributed.jobs.blocks import states_at_once
from lola.emulation.cache_config import CacheConfig
from lola.data.well.splits import state_bytes

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

datasets = Datasets(sys.argv[1])
split = datasets.open(datasets.infer("MHD_256"), "train")
assert default_block(split) == 1
(file,) = simulation_files(split)
before = peak()
states = states_at_once(split.steps, CacheConfig(), state_bytes(split))
assert states == 1
next(SimulationFile(split, file.members).blocks(0, states))
print(peak() - before)
(row,) = [row for table in ScannedFile(split, file.members).blocks(0, 0) for row in table.to_pylist()]
assert row["states"] == 16 and row["values"] == 16 * 256**3
print(peak() - before)
"""


@pytest.mark.long
def test_statistics_and_the_blocks_of_a_cache_take_little_more_than_a_state(tmp_path):
    path = tmp_path / "MHD_256" / "data" / "train" / "a.hdf5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        axes = {name: np.arange(256.0) for name in "xyz"}
        write_layout(file, "MHD_256", 1, np.arange(16.0), axes, {"Mach": 0.7}, np.full((3, 2), 2))
        for order, names in enumerate((["density"], ["magnetic_field", "velocity"], [])):
            group = file.create_group(f"t{order}_fields")
            group.attrs["field_names"] = names
            for name in names:
                properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # the file has its size, and no blocks
                space = h5py.h5s.create_simple((1, STEPS, *GRID, *(3,) * order))
                h5py.h5d.create(group.id, name.encode(), h5py.h5t.NATIVE_FLOAT, space, properties)
                group[name].attrs.update(dim_varying=[True] * 3, sample_varying=True, time_varying=True)
    assert path.stat().st_size > STEPS * STATE
    assert path.stat().st_blocks * 512 < 2**20
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    block, both = map(int, result.stdout.split())
    print(block / STATE, both / STATE)
    assert block < 3 * STATE
    assert both < 3 * STATE
