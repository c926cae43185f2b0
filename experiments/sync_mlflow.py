"""Send missing records to MLflow: `sync_mlflow.py [--storage ROOT]`; needs no cluster."""

import dataclasses

from lola.core.cli import launch_alone
from lola.core.config import Config, runtime_field
from lola.core.waiting import loading
from lola.storage.stages import resolve_storage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sync(Config):
    """The storage root whose sweeps are sent.

    Arguments:
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
    """

    storage: str | None = runtime_field(None)


def main(config: Sync) -> None:
    """Send missing records of all sweeps to MLflow, and correct the status of runs whose process ended."""
    with loading():
        from lola.storage.tracking import sync

    sync(resolve_storage(config.storage, create=False), lambda text: print(text, flush=True))


if __name__ == "__main__":
    launch_alone(main, Sync)
