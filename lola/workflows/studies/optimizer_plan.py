"""A study of optimisers: the same autoencoder trained by each, at several rates and seeds (Table 4).

Every run is a stage and a trial like those of a sweep; they differ in the optimiser, its learning rate, the
seed and the initialisation, and need nothing of each other.
"""

import dataclasses
import functools
import itertools
from typing import cast

from lola.core.errors import DivergedError
from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.distributed.trials import Step, Trial
from lola.storage.event_log import EventLog
from lola.storage.stages import Stage
from lola.workflows.base_plan import BasePlan, stage_tags
from lola.workflows.steps import autoencoder_step, training_trial
from lola.workflows.studies.optimizers import ArmConfig, OptimizerStudyConfig
from lola.workflows.sweep import Recipe


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One training of the study."""

    arm: ArmConfig
    learning_rate: float
    seed: int
    trial: Trial


class OptimizerPlan(BasePlan[OptimizerStudyConfig]):
    """All trials of a study."""

    title = "optimisers"

    @functools.cached_property
    def runs(self) -> tuple[StudyRun, ...]:
        """Every optimiser at every rate and seed; seeds last, so that all rates are seen early."""
        return tuple(
            StudyRun(arm, rate, seed, self._trial(arm, rate, seed))
            for seed, arm in itertools.product(self.config.seeds, self.config.arms)
            for rate in arm.learning_rates
        )

    @property
    def trials(self) -> tuple[Trial, ...]:
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
            inputs={"dataset": self.data.fingerprint},
        )
        tags = stage_tags(
            *("autoencoder", system.name, "autoencoder"),
            config.autoencoder.compression(len(system.channels), system.dimensions),
            optimizer=arm.optimizer.name,
            identity_init=arm.identity_init,
            learning_rate=rate,
            seed=seed,
        )
        step = autoencoder_step(stage, self.data, self.datasets, tags)
        step = dataclasses.replace(step, run=functools.partial(train_or_diverge, step), register=False)
        return training_trial(f"{arm.name} at {rate:g}, seed {seed}", recipe.training, step)


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
