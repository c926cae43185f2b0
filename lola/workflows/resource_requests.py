"""What the stages of a sweep or a study take of a cluster at the same time, at least."""

from collections.abc import Iterable, Iterator

from lola.core.config import Config, option_name
from lola.distributed.cluster.resources import ResourceRequest, cluster_resources, require_feasible
from lola.distributed.jobs.blocks import encoder_request
from lola.distributed.jobs.compute_statistics import READING_REQUEST, StatisticsConfig
from lola.distributed.jobs.evaluate import task_request
from lola.distributed.jobs.worker import workers_request
from lola.distributed.trials import Trial
from lola.emulation.cache_config import CacheConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.training.config import TrainingConfig
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


def requests_by_option(config: object, stages: Iterable[Config]) -> dict[str, ResourceRequest]:
    """What the parts of a workflow's configuration that stages have take, by the options that hold them."""
    needed = {request_of(stage) for stage in stages}
    requests = {option_name(name): request_of(part) for name, part in parts_of(config)}
    return {name: request for name, request in requests.items() if request is not None and request in needed}


def parts_of(config: object) -> Iterator[tuple[str, Config]]:
    """The parts of a workflow's configuration, and those of its arms, by their names on the command line."""
    for name, value in vars(config).items():
        if isinstance(value, Config):
            yield name, value
        elif isinstance(value, tuple):
            for number, arm in enumerate(value):
                if isinstance(arm, Config):
                    yield from ((f"{name}.{number}.{option}", part) for option, part in arm.named_parts())


def check_resources(config: object, trials: Iterable[Trial]) -> None:
    """Refuse stages of trials, of those that are not finished, that the cluster can never run.

    Raises:
        ClusterError: The cluster cannot grow, and lacks what one of them takes.
    """
    steps = (step for trial in trials for step in trial.steps if not step.stage.finished)
    require_feasible(requests_by_option(config, (step.stage.config for step in steps)), cluster_resources())
