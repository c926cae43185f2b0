"""Train autoencoders as stages that a sweep reuses."""

import dataclasses
from collections.abc import Callable

import tyro

from lola.core.cli import launch
from lola.core.config import Distinct, Size
from lola.core.waiting import loading
from lola.models.transformer_autoencoder_config import AnyAutoencoder
from lola.training.config import TrainingConfig
from lola.workflows import presets
from lola.workflows.sweep import Statistics, SweepConfig
from lola.workflows.workflow_config import WorkflowConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoders(WorkflowConfig):
    """The autoencoders to train.

    Arguments:
        latent_channels: Latent channels of the autoencoders.
        autoencoder: The autoencoder; its latent channels are set by --latent-channels.
        autoencoder_training: How they are trained.
        statistics: Standardise fields by the statistics of their system (configured) or of this training set.
        sweep: The sweep that they are part of.
    """

    superseded = {"autoencoder.latent_channels": "latent_channels"}  # noqa: RUF012

    latent_channels: Distinct[Size]
    autoencoder: AnyAutoencoder
    autoencoder_training: TrainingConfig
    statistics: Statistics = "configured"
    sweep: tyro.conf.Suppress[tyro.conf.Fixed[SweepConfig]]

    def validate(self) -> None:
        self.full_sweep()

    def full_sweep(self) -> SweepConfig:
        """The sweep with these autoencoders."""
        return self.sweep.replace(**{k: v for k, v in vars(self).items() if k in vars(self.sweep)})


def configure(preset: Callable[..., SweepConfig]) -> Callable[..., Autoencoders]:
    """The autoencoders of a sweep's preset."""

    def build(**given: str) -> Autoencoders:
        sweep = preset(**given)
        names = {field.name for field in dataclasses.fields(Autoencoders)}
        return Autoencoders(sweep=sweep, **{n: getattr(sweep, n) for n in names & vars(sweep).keys()})

    return build


def main(config: Autoencoders) -> None:
    """Train autoencoders, each from its last checkpoint if there is one; finished ones are kept."""
    with loading():
        from lola.workflows.forecast.show import show_sweep
        from lola.workflows.run import run_stages

    sweep = config.full_sweep()
    choose = lambda plan: map(plan.autoencoder, sweep.latent_channels)  # noqa: E731
    if config.plan:
        show_sweep(sweep, choose)
    else:
        run_stages(sweep, "autoencoders", choose)


if __name__ == "__main__":
    launch(
        main,
        {name: configure(preset) for name, preset in presets.SWEEPS.items()},
        "mini",
        presets.GIVEN,
    )
