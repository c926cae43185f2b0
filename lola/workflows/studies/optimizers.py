"""A study of optimisers: the same autoencoder trained by each, at several rates and seeds (Table 4).

Every run is a stage and a trial like those of a sweep; they differ in the optimiser, its learning rate, the
seed and the initialisation, and need nothing of each other.
"""

import dataclasses
import functools
import itertools
from typing import cast

from lola.core.config import Config, Distinct, Place, Positive, fingerprint, how, located, require
from lola.core.errors import DivergedError
from lola.data.systems import System, get_system
from lola.data.well.datasets import Datasets
from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.distributed.trials import Step, Trial
from lola.models.autoencoder import AutoencoderConfig
from lola.simulate.simulators import Simulation
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath
from lola.storage.stages import Location, Stage
from lola.training.loop import TrainingConfig
from lola.training.optim import OptimizerConfig
from lola.workflows.fitting import Data, field_windows, fit_autoencoder, fit_training
from lola.workflows.plan import autoencoder_step, open_dataset
from lola.workflows.sweep import Recipe, check_simulation


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmConfig(Config):
    """An optimiser to compare.

    Arguments:
        optimizer: The optimiser, but for its learning rate.
        identity_init: Whether resampling and latent convolutions start near the identity.
        learning_rates: The grid out of which the best rate is shown.
    """

    optimizer: OptimizerConfig
    identity_init: bool = True
    learning_rates: Distinct[Positive]

    @property
    def name(self) -> str:
        """A name for folders, such as `adam-plain`."""
        return self.optimizer.name + ("" if self.identity_init else "-plain")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerStudyConfig(Config):
    """A study of optimisers on one physical system.

    Arguments:
        system: The physical system.
        simulation: What to simulate where the datasets are missing; with none they must be there.
        autoencoder: The autoencoder, but for its initialisation.
        training: How it is trained, but for the optimiser and the seed.
        arms: The optimisers; the first is what the others are compared with.
        seeds: Training seeds of every optimiser and rate.
        well: The folder of Well datasets, absolute or under the storage root.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
        concurrency: The most trials at once, which a cluster that may grow is asked for together; 0 is as
            many as it has room for, and there one more.
    """

    system: str = "euler"
    simulation: Simulation | None = None
    autoencoder: AutoencoderConfig
    training: TrainingConfig
    arms: Distinct[ArmConfig]
    seeds: Distinct[int] = (0, 1, 2)
    well: str = how("well")
    storage: str | None = how(None)
    concurrency: Place = how(0)

    def fit(self, data: Data) -> None:
        """Raise `ConfigError` unless the options fit the data."""
        fit_autoencoder(self.autoencoder, data)
        with located("training."):
            fit_training(self.training, field_windows(data, 1), 1)

    def validate(self) -> None:
        check_simulation(self.system, self.simulation)
        names = [arm.name for arm in self.arms]
        require(len(set(names)) == len(names), f"--arms: optimisers {', '.join(names)} name one twice")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of the study."""

    arm: ArmConfig
    learning_rate: float
    seed: int
    trial: Trial


class OptimizerPlan:
    """All trials of a study.

    Arguments:
        config: The study.
        root: The storage root.
        well: The folder of Well datasets, a path or a URL.

    Raises:
        DataError: The datasets are missing or faulty.
        ConfigError: Options do not fit the data.
    """

    def __init__(self, config: OptimizerStudyConfig, root: AnyPath, well: Location) -> None:
        self.config, self.root, self.datasets = config, root, Datasets(well)
        self.system: System = get_system(config.system)
        self.splits, self.dataset = open_dataset(self.datasets, self.system)
        config.fit(Data.of_splits(self.splits))

    @property
    def fingerprint(self) -> str:
        """The study's own fingerprint."""
        return fingerprint(self.config, self.dataset)

    @functools.cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every optimiser at every rate and seed; seeds last, so that all rates are seen early."""
        return tuple(
            Run(arm, rate, seed, self._trial(arm, rate, seed))
            for seed, arm in itertools.product(self.config.seeds, self.config.arms)
            for rate in arm.learning_rates
        )

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials; none needs another."""
        return tuple(run.trial for run in self.runs)

    def _trial(self, arm: ArmConfig, rate: float, seed: int) -> Trial:
        config, system = self.config, self.system
        recipe = Recipe(
            model=config.autoencoder.replace(identity_init=arm.identity_init),
            training=config.training.replace(optimizer=arm.optimizer.replace(learning_rate=rate), seed=seed),
        )
        stage = Stage(
            root=self.root,
            kind="autoencoders",
            system=system.name,
            what=f"study-{arm.name}-{rate:g}-s{seed}",
            config=recipe,
            inputs={"dataset": self.dataset},
        )
        tags = {
            "system": system.name,
            "stage": "autoencoder",
            "model": "autoencoder",
            "space": "latent",
            "compression": f"{config.autoencoder.compression(len(system.channels), system.dimensions):g}",
            "optimizer": arm.optimizer.name,
            "identity_init": arm.identity_init,
            "learning_rate": rate,
            "seed": seed,
        }
        workers = recipe.training.most_workers
        step = autoencoder_step(stage, self.datasets, tags)
        step = dataclasses.replace(step, run=functools.partial(train_or_diverge, step), register=False)
        return Trial(
            f"{arm.name} at {rate:g}, seed {seed}",
            (step,),
            cpus=recipe.training.cpus * workers,
            gpus=recipe.training.gpus * workers,
        )


def train_or_diverge(step: Step) -> None:
    """Make a run's stage. A training that diverges is a result of the study, of a rate that is too high: its
    stage is committed without weights, and says why."""
    try:
        step.run()
    except DivergedError as error:
        training = cast(Recipe, step.stage.config).training
        EventLog(step.stage.folder).notice(str(error))
        step.stage.commit(diverged=str(error))
        CheckpointStore.of(step.stage, training).remove()
