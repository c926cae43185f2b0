"""Where a run's checkpoints are while it trains: in its stage's folder, or wherever else fsspec reaches.

Ray Train keeps the folder, and a list of the checkpoints in it that it resumes a run from. A checkpoint that
is not on this list, since its upload was cut off, is written again.
"""

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow.fs

from lola.storage import Stage
from lola.training.loop import TrainingConfig


@dataclasses.dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    Arguments:
        url: The folder that Ray Train's folder is in, a path or a URL.
    """

    NAME: ClassVar[str] = "checkpoints"

    url: str

    @classmethod
    def of(cls, stage: Stage, config: TrainingConfig) -> "CheckpointStore":
        """The store of a stage's training."""
        if config.checkpoints is None:
            return cls(str(stage.folder))
        return cls(f"{config.checkpoints.rstrip('/')}/{stage.name}")

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The filesystem; credentials and endpoints come from the environment."""
        return fsspec.core.url_to_fs(self.url, use_listings_cache=False)[0]

    @property
    def parent(self) -> str:
        """The path in the filesystem."""
        return fsspec.core.url_to_fs(self.url, use_listings_cache=False)[1]

    @property
    def remote(self) -> bool:
        """Whether it is anywhere but in a folder of this machine, or of one that all nodes see."""
        return "file" not in self.filesystem.protocol

    def arrow(self) -> pyarrow.fs.FileSystem | None:
        """The filesystem for Ray Train; None is that of a folder."""
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.filesystem)) if self.remote else None

    def aside(self) -> Path:
        """Where a worker writes a checkpoint before it is uploaded."""
        if self.remote:
            return Path(tempfile.gettempdir())
        folder = Path(self.parent) / self.NAME
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def drop_torn_snapshot(self) -> None:
        """Ray Train's list is not written atomically to a folder; a torn one would stop the run for good."""
        for snapshot in () if self.remote else (Path(self.parent) / self.NAME).glob("*snapshot*.json"):
            try:
                json.loads(snapshot.read_text())
            except ValueError:
                snapshot.unlink()

    def remove(self) -> None:
        """Remove all checkpoints."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm(f"{self.parent}/{self.NAME}", recursive=True)
