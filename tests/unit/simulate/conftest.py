"""What the tests of simulations share."""

import pytest

from lola.simulate.simulation import SimulationJob, simulate_trajectory, write_file


@pytest.fixture
def trajectory():
    """Simulate one trajectory of a split: its fields and the number of rejected draws."""

    def simulate(config, case, split="train", index=0):
        with config.solver(case) as solve:
            return simulate_trajectory(SimulationJob(case, split, index + 1), config, index, solve)

    return simulate


@pytest.fixture
def well_of(tmp_path):
    """Write one file of each split and the statistics; returns the folder of datasets."""
    from lola.data.well.writer import write_statistics

    def write(config):
        case = config.cases()[0]
        for split in ("train", "valid", "test"):
            job = SimulationJob(case, split, 1)
            assert write_file(job, config, tmp_path / job.path)["trajectories"] == 1
        write_statistics(tmp_path / case.dataset)
        return tmp_path

    return write
