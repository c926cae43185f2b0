"""What the stages of a sweep or a study take of a cluster at the same time, at least."""

from collections.abc import Iterable, Iterator

from lola.core.config import Config
from lola.distributed.cluster.resources import Demand, current_cluster, refuse_impossible
from lola.distributed.jobs.blocks import encoder_demand
from lola.distributed.jobs.evaluate import task_demand
from lola.distributed.jobs.statistics import READING, StatisticsConfig
from lola.distributed.jobs.train import workers_demand
from lola.distributed.trials import Trial
from lola.emulation.encoding import CacheConfig
from lola.evaluation.evaluate import EvaluationConfig
from lola.training.loop import TrainingConfig
from lola.workflows.sweep import Recipe


def demand_of(config: Config) -> Demand | None:
    """What the stages of a configuration take at once at least; None is nothing but the trial itself."""
    if isinstance(config, Recipe):
        return demand_of(config.training)
    if isinstance(config, TrainingConfig):
        return workers_demand(config)
    if isinstance(config, CacheConfig):
        return encoder_demand(config)
    if isinstance(config, EvaluationConfig):
        return task_demand(max(0.0, config.gpus))
    if isinstance(config, StatisticsConfig):
        return READING
    return None


def options_of(settings: object) -> dict[str, Demand]:
    """What the parts of a sweep's or a study's configuration take, by the options that hold them."""
    demands = {
        f"--{name.replace('_', '-')}": demand_of(value)
        for name, value in vars(settings).items()
        if isinstance(value, Config)
    }
    return {name: demand for name, demand in demands.items() if demand is not None}


def pending_demands(settings: object, configs: Iterable[Config]) -> dict[str, Demand]:
    """Those of `options_of` that stages which are still to be made have need of."""
    needed = {demand for config in configs if (demand := demand_of(config)) is not None}
    return {name: demand for name, demand in options_of(settings).items() if demand in needed}


def configs_of(trials: Iterable[Trial]) -> Iterator[Config]:
    """The configurations of the stages of trials that are not finished."""
    for trial in trials:
        for step in trial.steps:
            if not step.stage.finished:
                yield step.stage.config


def refuse_stages(settings: object, trials: Iterable[Trial]) -> None:
    """Refuse stages that the cluster can never run, of those of trials that are not finished.

    Raises:
        ClusterError: The cluster cannot grow, and lacks what one of them takes.
    """
    refuse_impossible(pending_demands(settings, configs_of(trials)), current_cluster())


def refuse_parts(settings: object, parts: Iterable[str] = ()) -> None:
    """Refuse parts of a configuration, all if none is named, that the cluster can never run.

    Raises:
        ClusterError: The cluster cannot grow, and lacks what one of them takes.
    """
    wanted = {f"--{name.replace('_', '-')}" for name in parts}
    demands = options_of(settings)
    refuse_impossible({k: d for k, d in demands.items() if not wanted or k in wanted}, current_cluster())
