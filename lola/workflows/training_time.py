"""How long finished models were trained, from the records of their stages."""

from lola.storage.event_log import read_events
from lola.storage.remote import AnyPath
from lola.storage.stages import read_manifest

PER_STEP = "train/seconds_per_step"


def training_seconds(folder: AnyPath) -> float | None:
    """Seconds of the training steps of a finished model and of those that it started from.

    Validations, start-up and steps that an interruption lost are left out: of steps that were done twice the
    last count. None if a record is missing, such as that of a source which is not in the same folder.
    """
    total = 0.0
    while True:
        own = _own_seconds(folder)
        if own is None:
            return None
        total += own
        source = read_manifest(folder).get("warm_start")
        if source is None:
            return total
        folder = folder.parent / source
        if not (folder / "manifest.json").exists():
            return None


def _own_seconds(folder: AnyPath) -> float | None:
    rates = {}
    for _, event in read_events(folder):
        if event["kind"] == "metrics" and PER_STEP in event["values"]:
            rates[event["step"]] = event["values"][PER_STEP]
    steps = sorted(rates)
    if not steps:
        return None
    return sum(rates[step] * (step - before) for before, step in zip([0, *steps], steps, strict=False))
