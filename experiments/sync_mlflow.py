"""Send MLflow everything that it lacks: `sync_mlflow.py [--storage ROOT]`; needs no cluster."""

import dataclasses

from lola.core.cli import launch_alone
from lola.core.config import Config, how
from lola.core.waiting import loading
from lola.storage.stages import resolve_storage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sync(Config):
    """What to send.

    Arguments:
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
    """

    storage: str | None = how(None)


def main(config: Sync) -> None:
    """Send everything of all sweeps that MLflow lacks, and correct the status of runs whose process ended."""
    with loading():
        from lola.storage.tracking import sync

    sync(resolve_storage(config.storage), lambda text: print(text, flush=True))


if __name__ == "__main__":
    launch_alone(main, Sync)
