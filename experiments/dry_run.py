"""Print what every model of a preset costs to train, for all physical systems."""

import dataclasses

import announce  # noqa: F401

from lola.core.cli import launch
from lola.core.config import Config, Distinct, require
from lola.data.systems import SYSTEMS
from lola.training.cost import Hardware
from lola.workflows import presets
from lola.workflows.forecast.training_costs import jobs, show

# Days that the paper's authors trained, on 8 GPUs, in pixel space on 16 (Appendix B)
DAYS = {
    "euler": {"autoencoder": 2, "latent": 5, "pixel": 10},
    "rayleigh_benard": {"autoencoder": 1, "latent": 2, "pixel": 5},
    "turbulence_gravity_cooling": {"autoencoder": 4, "latent": 5},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRun(Config):
    """What is estimated.

    Arguments:
        preset: The sweep.
        systems: The physical systems.
        hardware: The GPUs.
    """

    preset: str
    systems: Distinct[str] = tuple(SYSTEMS)
    hardware: Hardware = dataclasses.field(default_factory=Hardware)

    def validate(self) -> None:
        require(self.preset in presets.SWEEPS, f"--preset must be one of {', '.join(presets.SWEEPS)}")
        for name in self.systems:
            require(name in SYSTEMS, f"--systems must be among {', '.join(SYSTEMS)}, not {name!r}")


def main(config: DryRun) -> None:
    """Print parameters, operations, memory, reads and GPU hours of every model, without data."""
    chosen = [job for name in config.systems for job in jobs(presets.SWEEPS[config.preset](name))]
    hours = {
        (name, kind): 24 * days * (16 if kind == "pixel" else 8)
        for name, kinds in DAYS.items()
        for kind, days in kinds.items()
    }
    show(chosen, config.hardware, hours if config.preset == "paper" else {})


if __name__ == "__main__":
    launch(main, {name: lambda name=name: DryRun(preset=name) for name in presets.SWEEPS}, default="paper")
