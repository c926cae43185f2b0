"""Simulate Euler multi-quadrant ensembles in The Well's format."""

import dataclasses

import presets

from lola.cli import launch
from lola.config import Config, how
from lola.distributed.simulate import simulate
from lola.errors import StorageError
from lola.simulate.euler import EulerConfig
from lola.storage import resolve_storage, well_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulation(Config):
    """What to simulate, and where to.

    Arguments:
        euler: The simulations.
        well: The folder of Well datasets, absolute or under the storage root.
        storage: The storage root; else LOLA_STORAGE, else ~/lola-storage.
    """

    euler: EulerConfig
    well: str = how("well")
    storage: str | None = how(None)


def main(config: Simulation) -> None:
    """Simulate the Euler equations with Clawpack; files that are there already are kept."""
    folder = well_folder(resolve_storage(config.storage), config.well)
    if isinstance(folder, str):
        raise StorageError(
            f"{folder} is remote; simulations are written to a local or shared folder: give --well"
        )
    simulate(config.euler, folder)


if __name__ == "__main__":
    launch(
        main,
        {
            name: lambda preset=preset: Simulation(euler=preset().simulation, well=preset().well)
            for name, preset in presets.SWEEPS.items()
            if preset().simulation is not None
        },
        default="mini",
    )
