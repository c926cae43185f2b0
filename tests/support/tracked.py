"""A sweep of one stage whose records are sent to MLflow."""

from lola.storage.event_log import EventLog
from lola.storage.tracking import Tracker


def tracker(storage):
    each = Tracker(storage, "euler")
    each.start_sweep("sweep", "f" * 64, {"system": "euler"})
    each.follow(storage / "stage", "a" * 64)
    return each


def record(storage):
    event_log = EventLog(storage / "stage")
    event_log.describe(name="autoencoder", tags={"model": "autoencoder"}, parameters={"compression": 20})
    event_log.status("RUNNING")
    event_log.metrics(10, {"train/loss": 0.5})
    return event_log


def child(each):
    query = f"tags.`lola.fingerprint` = '{'a' * 64}'"
    (run,) = each.client.search_runs([each.experiment], query)
    return run


def run_of(fake, fingerprint="a" * 64):
    (run,) = [
        run
        for run in fake.runs.values()
        if run.lifecycle == "active" and run.tags["lola.fingerprint"] == fingerprint
    ]
    return run


def steps(run, key="train/loss"):
    return [metric.step for metric in run.metrics.get(key, [])]
