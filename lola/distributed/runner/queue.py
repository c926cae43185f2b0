"""The order in which Ray Tune starts the trials of a plan: each once everything that it needs is finished.

Ray Tune asks a search algorithm for the next trial again and again. This one answers with the first waiting
trial whose needs are finished and which fits the cluster; with nothing while none does; and with the
end when no running trial could make what the waiting ones need.

Trials take nothing of Ray themselves, but what they start does, so that resources are counted here: what
the running ones take, against what the cluster has at the moment. Where it may grow, more trials than fit are
started: they wait for their workers, which makes an autoscaler add nodes. Its limit is not known:
if a limit is given, that many are started at once, and all nodes are asked for together; else one more than
fits, and nodes come one after the other. A trial that is larger than the whole cluster waits for all others,
so that it does not block them.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.search import Searcher

from lola.core.waiting import Log
from lola.distributed.cluster.resources import ROUNDING, ClusterResources
from lola.distributed.trials import WAIT_MESSAGE, Trial

READ_INTERVAL_S = 2.0  # between readings of the cluster, and of stages that another sweep may have made


class TrialQueue(Searcher):
    """Hands out trials in their order, each once its needs are finished and it fits the cluster.

    Arguments:
        trials: What to run; a configuration names a trial as `trial`.
        limit: Maximum number of concurrent trials; 0 is no limit.
        log: Takes a line about what a trial waits for.
    """

    def __init__(
        self,
        trials: Iterable[Trial],
        read_resources: Callable[[], ClusterResources],
        limit: int = 0,
        log: Log = lambda _: None,
    ) -> None:
        super().__init__()
        self.waiting = {trial.name: trial for trial in trials}
        self.ready: dict[str, Trial] = {}
        self.running: dict[str, Trial] = {}
        self.read_resources, self.limit, self.log = read_resources, limit, log
        self._read_at = float("-inf")
        self._resources = ClusterResources()

    def __getstate__(self) -> dict[str, Any]:
        """What Ray Tune keeps in a file; a console cannot be."""
        return self.__dict__ | {"log": print}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial's configuration; None for now, or `FINISHED` when nothing can follow."""
        if time.monotonic() - self._read_at > READ_INTERVAL_S:
            self._refresh()
        if not self.ready:
            return None if self.waiting and self.running else Searcher.FINISHED
        trial = self._fitting()
        if trial is None:
            return None
        del self.ready[trial.name], self.waiting[trial.name]
        self.running[trial_id] = trial
        return {"trial": trial.name}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Log what a trial reports that it waits for."""
        if WAIT_MESSAGE in result:
            self.log(result[WAIT_MESSAGE])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Forget a trial that ended, well or not."""
        self.running.pop(trial_id, None)
        self._read_at = float("-inf")

    def _refresh(self) -> None:
        """Read the cluster, and find trials that have become ready."""
        self._resources, self._read_at = self.read_resources(), time.monotonic()
        if len(self.ready) < len(self.waiting):
            ready = self.ready.keys()  # and stay so
            self.ready = {name: trial for name, trial in self.waiting.items() if name in ready or trial.ready}

    def _fitting(self) -> Trial | None:
        """The first ready trial, unless it does not fit the cluster now."""
        if self.limit and len(self.running) >= self.limit:
            return None
        cpus = self._resources.cpus - sum(trial.cpus for trial in self.running.values())
        gpus = self._resources.gpus - sum(trial.gpus for trial in self.running.values())
        whole = (
            trial
            for trial in self.ready.values()
            if trial.cpus <= self._resources.cpus and trial.gpus <= self._resources.gpus
        )
        first = next(whole, next(iter(self.ready.values())))
        over = cpus < 0 or gpus < -ROUNDING  # one waits for its workers already
        fits = first.cpus <= cpus and first.gpus <= gpus + ROUNDING
        asks = self._resources.grows and (bool(self.limit) or not over)
        return first if fits or asks or not self.running else None
