"""What the stages of a sweep or a study take of a cluster at the same time, at least."""

from collections.abc import Iterable, Iterator

from lola.core.config import Config
from lola.distributed.cluster.resources import ResourceRequest, cluster_resources, require_feasible
from lola.distributed.jobs.blocks import encoder_request
from lola.distributed.jobs.evaluate import task_request
from lola.distributed.jobs.statistics import READING_REQUEST, StatisticsConfig
from lola.distributed.jobs.train import workers_request
from lola.distributed.trials import Trial
from lola.emulation.encoding import CacheConfig
from lola.evaluation.evaluate import EvaluationConfig
from lola.training.loop import TrainingConfig
from lola.workflows.sweep import Recipe


def request_of(config: Config) -> ResourceRequest | None:
    """What the stages of a configuration take at once at least; None is nothing but the trial itself."""
    if isinstance(config, Recipe):
        return request_of(config.training)
    if isinstance(config, TrainingConfig):
        return workers_request(config)
    if isinstance(config, CacheConfig):
        return encoder_request(config)
    if isinstance(config, EvaluationConfig):
        return task_request(max(0.0, config.gpus))
    if isinstance(config, StatisticsConfig):
        return READING_REQUEST
    return None


def options_of(settings: object) -> dict[str, ResourceRequest]:
    """What the parts of a sweep's or a study's configuration take, by the options that hold them."""
    requests = {
        f"--{name.replace('_', '-')}": request_of(value)
        for name, value in vars(settings).items()
        if isinstance(value, Config)
    }
    return {name: request for name, request in requests.items() if request is not None}


def pending_requests(settings: object, configs: Iterable[Config]) -> dict[str, ResourceRequest]:
    """Those of `options_of` that stages which are still to be made have need of."""
    needed = {request for config in configs if (request := request_of(config)) is not None}
    return {name: request for name, request in options_of(settings).items() if request in needed}


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
    require_feasible(pending_requests(settings, configs_of(trials)), cluster_resources())


def refuse_parts(settings: object, parts: Iterable[str] = ()) -> None:
    """Refuse parts of a configuration, all if none is named, that the cluster can never run.

    Raises:
        ClusterError: The cluster cannot grow, and lacks what one of them takes.
    """
    wanted = {f"--{name.replace('_', '-')}" for name in parts}
    requests = options_of(settings)
    require_feasible({k: d for k, d in requests.items() if not wanted or k in wanted}, cluster_resources())
