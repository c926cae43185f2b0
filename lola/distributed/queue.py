"""The order in which Ray Tune starts the trials of a plan: each once everything that it needs is finished.

Ray Tune asks a search algorithm for the next trial whenever there is room for one. This one answers with the
first waiting trial whose needs are finished, with nothing while these are still being made, and with the end
when no running trial could make them any more.
"""

from collections.abc import Iterable
from typing import Any

from ray.tune.search import Searcher

from lola.distributed.sweep import Trial


class TrialQueue(Searcher):
    """Hands out trials in their order, each once its needs are finished.

    Arguments:
        trials: What to run; a configuration names a trial as `trial`.
    """

    def __init__(self, trials: Iterable[Trial]) -> None:
        super().__init__()
        self.waiting = list(trials)
        self.running: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial's configuration; None for now, or `FINISHED` when nothing can follow."""
        ready = next((trial for trial in self.waiting if trial.ready), None)
        if ready is None:
            return None if self.waiting and self.running else Searcher.FINISHED
        self.waiting.remove(ready)
        self.running.add(trial_id)
        return {"trial": ready.name}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Forget a trial that ended, well or not."""
        self.running.discard(trial_id)
