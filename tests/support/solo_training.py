"""Trainings run in the process that calls them, with Ray Train's own list of checkpoints and no cluster."""

import pytest

from lola.distributed.jobs import train
from lola.distributed.jobs.train_alone import train_here


def train_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings of one worker run in this process."""
    monkeypatch.setattr(train, "train_by_one", train_here)
