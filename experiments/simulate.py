"""Simulate any of the physical systems in The Well's format."""

import dataclasses

import presets

from lola.cli import launch
from lola.config import Config, how
from lola.distributed.simulate import simulate
from lola.simulate.systems import Simulation
from lola.storage import resolve_storage, well_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulations(Config):
    """What to simulate, and where to.

    Arguments:
        simulation: The simulations.
        well: The folder of Well datasets, absolute or under the storage root.
        storage: The storage root; else LOLA_STORAGE, else ~/lola-storage.
    """

    simulation: Simulation
    well: str = how("well")
    storage: str | None = how(None)


def main(config: Simulations) -> None:
    """Simulate the Euler equations with Clawpack, Rayleigh-Benard convection with Dedalus, or turbulence with
    gravity and cooling with astronomix.

    Presets are the physical systems, and the sweeps for what they simulate. Files that are there already are
    kept.
    """
    simulate(config.simulation, well_folder(resolve_storage(config.storage), config.well))


if __name__ == "__main__":
    systems = {
        name: lambda build=build: Simulations(simulation=build())
        for name, build in presets.SIMULATIONS.items()
    }
    sweeps = {
        name: lambda preset=preset: Simulations(simulation=preset().simulation, well=preset().well)
        for name, preset in presets.SWEEPS.items()
        if preset().simulation is not None
    }
    launch(main, systems | sweeps, default="mini")
