"""Simulate any of the physical systems in The Well's format."""

import dataclasses

from lola.core.cli import launch
from lola.core.config import Config, require, runtime_field
from lola.core.waiting import loading
from lola.simulate.simulators import Simulation
from lola.storage.stages import resolve_storage, well_folder
from lola.workflows import presets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulations(Config):
    """The simulations to run, and where to write them.

    Arguments:
        simulation: The simulations.
        well: The folder of Well datasets, absolute, under the storage root, or a URL.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
    """

    simulation: Simulation
    well: str = runtime_field("well")
    storage: str | None = runtime_field(None)

    def validate(self) -> None:
        train = self.simulation.train
        require(
            train > 0,
            f"--simulation.train must be at least 1, since statistics are computed from it, not {train}",
        )


def main(config: Simulations) -> None:
    """Simulate the Euler equations with Clawpack, Rayleigh-Benard convection with Dedalus, or turbulence with
    gravity and cooling with astronomix.

    Presets are the physical systems, in the size of the `mini` sweep. Existing files are kept.
    """
    with loading():
        from lola.distributed.cluster.connection import stopping_ray
        from lola.distributed.jobs.simulate import simulate

    with stopping_ray(print):
        simulate(config.simulation, well_folder(resolve_storage(config.storage), config.well))


if __name__ == "__main__":
    systems = {
        name: lambda simulation=simulation: Simulations(simulation=simulation)
        for name, simulation in presets.SIMULATIONS.items()
    }
    launch(main, systems, default="euler")
