"""A stage of any content."""

import dataclasses

from lola.core.config import Config
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depth(Config):
    depth: int = 1


def stage(root: AnyPath, depth: int = 1, **inputs: str) -> Stage:
    """The stage of an emulator in a root."""
    return Stage(
        root=root,
        kind="emulators",
        system="euler",
        what="diffusion-f16c64",
        config=Depth(depth=depth),
        inputs={"dataset": "d", **inputs},
    )
