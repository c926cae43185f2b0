"""What all plans have: data, and trials that are run or priced."""

import abc
import functools
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar

from lola.core.config import fingerprint
from lola.core.errors import DataError, MissingDataError
from lola.data.hdf5 import join, list_files
from lola.data.systems import SPLITS, System
from lola.data.well.datasets import Datasets
from lola.data.well.find import find_system
from lola.data.well.splits import WellSplit
from lola.distributed.jobs.simulate import needs_simulation
from lola.distributed.trials import Step, Trial
from lola.evaluation.trajectory import axes_of
from lola.storage.remote import AnyPath
from lola.storage.stages import Location, Stage
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.wall_clock import WallClock, has_minutes, is_timed
from lola.workflows.workflow_config import OWN_FOLDERS, WorkflowConfig

C = TypeVar("C", bound=WorkflowConfig)
P = TypeVar("P", bound="BasePlan")


class BasePlan(abc.ABC, Generic[C]):
    """A plan: trials, each of which needs only stages of trials before it.

    Results may call for more trials: a plan is run until it has none that is not finished.

    Arguments:
        well: The folder of Well datasets, a path or a URL.
        data: What the data are like. Where they do not exist yet, the plan can be priced, but not run, and
            its stages have no folders. By default the files are opened.

    Raises:
        DataError: The datasets are missing or faulty.
        ConfigError: Options do not fit the data.
    """

    title: ClassVar[str]
    """Names the workflow, for people."""
    remark: ClassVar[str] = ""
    """What a price does not include."""
    reported: bool = True
    """Whether a report follows its trials."""

    def __init__(self, config: C, root: AnyPath, well: Location, data: DatasetInfo | None = None) -> None:
        self.config, self.root = config, root
        self.clock = WallClock(root)
        self.system: System
        self.system, self.datasets = find_system(
            config.system, Datasets(well, config.include, config.exclude)
        )
        self.data = data or DatasetInfo.of_splits(self.splits, f"the files in {self.datasets.root}")
        config.fit(self.data)
        evaluation = getattr(config, "evaluation", None)
        if data is None and evaluation is not None and evaluation.geometry == "quadrature":
            scored = self.splits[evaluation.split]
            axes_of(scored, scored.trajectories[0])  # else an evaluation would find out, after all trainings

    @functools.cached_property
    def splits(self) -> dict[str, WellSplit]:
        """The splits of the dataset, as their files describe them."""
        datasets = Datasets(self.datasets.root, self.config.include, self.config.exclude)
        datasets.check(self.system)
        splits = {name: datasets.open(self.system, name) for name in SPLITS}
        for name, split in splits.items():
            first = splits[SPLITS[0]]
            for what, found, expected in (
                ("constants", split.constants, first.constants),
                ("grid", split.grid, first.grid),
            ):
                if found != expected:
                    raise DataError(
                        f"the {name} split of {self.system.name} has {what} {found}, and its {SPLITS[0]} "
                        f"split {expected}; leave one of the kinds out with --exclude or --include"
                    )
        return splits

    @property
    def fingerprint(self) -> str:
        config = self.config.replace(system=self.system.name)
        return fingerprint(config, self.data.fingerprint, *self.timed)

    @property
    def timed(self) -> dict[str, Stage]:
        """The stages whose trainings are given minutes, by their fingerprints: the configuration does not
        hold their steps."""
        if not has_minutes(self.config):
            return {}
        return {step.stage.fingerprint: step.stage for step in self.steps if is_timed(step.stage.config)}

    @property
    @abc.abstractmethod
    def trials(self) -> tuple[Trial, ...]:
        """All trials."""

    @property
    def steps(self) -> Iterator[Step]:
        """The steps of all trials, each after those that it needs."""
        return (step for trial in self.trials for step in trial.steps)


def stage_tags(stage: str, system: str, model: str, compression: float | None, **more: Any) -> dict[str, Any]:
    """What a stage's run in MLflow is tagged with; the compression rate is None in pixel space."""
    space = "pixel" if compression is None else "latent"
    described = {"system": system, "stage": stage, "model": model, "space": space}
    return described | {"compression": f"{compression or 1.0:g}"} | more


def open_plan(kind: type[P], config: WorkflowConfig, root: AnyPath, well: Location) -> P:
    """A plan also where no data exist: they are taken to be as simulated, else as published.

    Raises:
        LolaError: Files are faulty, nothing is known of them, options do not fit them, a split has none, or
            there are none in the folder that `--well` names.
    """
    simulation = config.simulation if config.simulates else None
    if simulation is not None and needs_simulation(simulation, well):
        data = DatasetInfo.of_simulation(simulation, config.include, config.exclude)
        return kind(config, root, well, data)
    try:
        return kind(config, root, well)
    except MissingDataError as error:
        if config.well not in OWN_FOLDERS:
            raise MissingDataError(f"{error}; a plan without --well takes sizes of published data") from error
        system, datasets = find_system(config.system, Datasets(well, config.include, config.exclude))
        folders = (join(datasets.root, name, "data", split) for name in system.datasets for split in SPLITS)
        if any(map(list_files, folders)):
            raise
        return kind(config, root, well, DatasetInfo.of_publication(system))
