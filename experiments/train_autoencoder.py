"""Train autoencoders, as the stages that a sweep would share."""

import dataclasses
from collections.abc import Callable

import announce  # noqa: F401
import tyro

from lola.core.cli import launch
from lola.core.config import Config, Distinct, Size, how
from lola.models.autoencoder import AutoencoderConfig
from lola.models.transformer_autoencoder import TransformerAutoencoderConfig
from lola.training.cost import Hardware
from lola.training.loop import TrainingConfig
from lola.workflows import presets
from lola.workflows.forecast.training_costs import autoencoder_job, show
from lola.workflows.run import run_stages
from lola.workflows.sweep import Statistics, SweepConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoders(Config):
    """Which autoencoders are trained, and how.

    Arguments:
        system: The physical system, which decides other defaults.
        latent_channels: Latent channels of the autoencoders.
        autoencoder: The autoencoder, but for its latent channels.
        autoencoder_training: How they are trained.
        statistics: What fields are standardised by: the statistics of their system or of this training set.
        well: The folder of Well datasets, absolute, under the storage root, or a URL.
        include, exclude: Only files whose name contains one of these are used; are not used.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
        dry_run: Whether to print what training costs, and do nothing else.
        hardware: The GPUs of the dry run.
        sweep: The sweep that they are part of.
    """

    system: str
    latent_channels: Distinct[Size]
    autoencoder: AutoencoderConfig | TransformerAutoencoderConfig
    autoencoder_training: TrainingConfig
    statistics: Statistics = "configured"
    well: str = how("well")
    include: tuple[str, ...] = how(())
    exclude: tuple[str, ...] = how(())
    storage: str | None = how(None)
    dry_run: bool = how(False)
    hardware: Hardware = dataclasses.field(default_factory=Hardware)
    sweep: tyro.conf.Suppress[tyro.conf.Fixed[SweepConfig]]

    def validate(self) -> None:
        self.whole()

    def whole(self) -> SweepConfig:
        """The sweep with these autoencoders."""
        return self.sweep.replace(**{k: v for k, v in vars(self).items() if k in vars(self.sweep)})


def of(preset: Callable[..., SweepConfig]) -> Callable[..., Autoencoders]:
    """The autoencoders of a sweep's preset."""

    def build(**given: str) -> Autoencoders:
        sweep = preset(**given)
        names = {field.name for field in dataclasses.fields(Autoencoders)}
        return Autoencoders(sweep=sweep, **{n: getattr(sweep, n) for n in names & vars(sweep).keys()})

    return build


def main(config: Autoencoders) -> None:
    """Train autoencoders, each from its last checkpoint if there is one; finished ones are kept."""
    if (sweep := config.whole()) and config.dry_run:
        return show([autoencoder_job(sweep, n) for n in sweep.latent_channels], config.hardware)
    choose = lambda plan: map(plan.autoencoder, sweep.latent_channels)  # noqa: E731
    run_stages(sweep, f"autoencoders {sweep.system}", choose, ["autoencoder_training"])


if __name__ == "__main__":
    launch(main, {name: of(preset) for name, preset in presets.SWEEPS.items()}, "mini", ("system",))
