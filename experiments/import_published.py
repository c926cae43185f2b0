"""Import a run that the authors published: `import_published.py RUN_DIR [--option value ...]`."""

import dataclasses

import tyro

from lola.core.cli import launch_alone
from lola.core.config import Config, fingerprint, flatten, require, runtime_field
from lola.core.waiting import loading
from lola.storage.stages import resolve_storage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import(Config):
    """The run to import, and its destination.

    Arguments:
        run: The folder of the run, with config.yaml and state.pth.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
        name: Name of the stage; default: made of its network and compression.
    """

    run: tyro.conf.Positional[str]
    storage: str | None = runtime_field(None)
    name: str | None = None

    def validate(self) -> None:
        allowed = self.name is None or self.name.replace("-", "").replace("_", "").isalnum()
        require(allowed, f"name {self.name} must be letters, digits, - and _: it becomes a folder")


def main(config: Import) -> None:
    """Convert a published run into a finished stage, and register it in MLflow.

    A run that was imported before is reused.
    """
    with loading():
        from lola.reference.convert import read_conversion, write_conversion
        from lola.storage.tracking import Tracker

    root = resolve_storage(config.storage)
    conversion = read_conversion(config.run, root, config.name)
    written = write_conversion(conversion)
    stages = [part.stage for part in (conversion.autoencoder, conversion) if part is not None]
    tracker = Tracker(root, conversion.stage.system, print)
    tracker.start_sweep(
        f"import {conversion.stage.what}",
        fingerprint("import", conversion.stage.fingerprint),
        flatten(conversion.config.to_json()),
    )
    for stage in stages:
        tracker.follow(stage.folder, stage.fingerprint)
        print(f"{'imported' if written else 'reused'}: {stage.folder}")
    tracker.finish_sweep(None, "FINISHED")
    for line in tracker.directions:
        print(line)
    if tracker.missing:
        print(tracker.missing)


if __name__ == "__main__":
    launch_alone(main, Import)
