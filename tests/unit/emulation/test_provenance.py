"""What an ensemble's file records of how it was made."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from lola.emulation.ensembles import read_provenance, write_provenance


@pytest.mark.parametrize("count", [4, 20_000])
def test_any_number_of_states_is_recorded(tmp_path, count):
    """An attribute of HDF5 holds 64 kB, 8,000 numbers."""
    config = SimpleNamespace(
        emulator="e", initial="a.hdf5", trajectories=tuple(range(count)), context=1, backward=False, seed=0
    )
    ensemble = SimpleNamespace(
        config=config,
        members=2,
        steps=4 * np.arange(count),
        split=SimpleNamespace(system=SimpleNamespace(shown="density", mask=None)),
    )
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        write_provenance(file, ensemble)
        assert read_provenance(file, "steps") == (4 * np.arange(count)).tolist()
        assert read_provenance(file, "trajectories") == list(range(count))
        del file["lola"]
        file.attrs["lola_steps"] = [0, 3]  # as earlier versions wrote it
        assert read_provenance(file, "steps") == [0, 3]
