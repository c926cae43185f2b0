"""The configuration of a study of optimisers."""

import dataclasses

from lola.core.config import Config, Distinct, Positive, prefix_options, require
from lola.models.autoencoder_config import AutoencoderConfig
from lola.simulate.simulators import Simulation
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.sweep import check_simulation
from lola.workflows.workflow_config import WorkflowConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmConfig(Config):
    """An optimiser to compare.

    Arguments:
        optimizer: The optimiser; its learning rate is set by `learning_rates`.
        identity_init: Whether resampling and latent convolutions start near the identity.
        learning_rates: The grid of learning rates; the best one is reported.
    """

    optimizer: OptimizerConfig
    identity_init: bool = True
    learning_rates: Distinct[Positive]

    @property
    def name(self) -> str:
        """A name for folders, such as `adam-plain`."""
        return self.optimizer.name + ("" if self.identity_init else "-plain")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerStudyConfig(WorkflowConfig):
    """A study of optimisers on one physical system.

    Arguments:
        simulation: The simulation that creates missing datasets; with none, the datasets must exist.
        autoencoder: The autoencoder; its initialisation is set by `arms`.
        training: Options of training; optimiser and seed are set by `arms` and `seeds`.
        arms: The optimisers; all others are compared with the first.
        seeds: Training seeds of every optimiser and rate.
    """

    simulation: Simulation | None = None
    autoencoder: AutoencoderConfig
    training: TrainingConfig
    arms: Distinct[ArmConfig]
    seeds: Distinct[int] = (0, 1, 2)

    def fit(self, data: DatasetInfo) -> None:
        from lola.workflows.fitting import field_windows, fit_training
        from lola.workflows.model_shape import ModelShape

        ModelShape.of_autoencoder(self.autoencoder, data).fit("autoencoder")
        with prefix_options("training."):
            fit_training(self.training, field_windows(data, 1), 1)

    def validate(self) -> None:
        check_simulation(self.system, self.simulation)
        require(
            self.autoencoder.warm_start is None,
            "--autoencoder.warm-start: a study of optimisers trains from new weights; leave it out",
        )
        require(
            self.training.minutes is None,
            "--training.minutes: a study compares optimisers after equal steps, and shows the time of each; "
            "give --training.steps",
        )
        names = [arm.name for arm in self.arms]
        require(len(set(names)) == len(names), f"--arms: optimisers {', '.join(names)} contains duplicates")
