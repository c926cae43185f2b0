"""An append-only record of what happened in a stage: parameters, tags, metrics, artifacts, status.

The record is one JSON value per line in `events.jsonl`. It is the truth about a run; a tracking server is
a view that can be rebuilt from it. A line torn by a crash is dropped when the record is opened again.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class Spool:
    """The writer of a record; one process at a time.

    Arguments:
        folder: The stage's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = spool_path(folder)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            whole = self.path.read_bytes()
            with self.path.open("r+b") as file:
                file.truncate(whole.rfind(b"\n") + 1)

    def describe(self, *, name: str, tags: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """Record what the run is."""
        self._append("describe", name=name, tags=dict(tags), parameters=dict(parameters))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics at a step."""
        self._append("metrics", step=step, values=dict(values))

    def artifact(self, path: Path) -> None:
        """Record a file of the stage's folder."""
        self._append("artifact", path=str(path.relative_to(self.path.parent)))

    def model(self, path: Path, name: str) -> None:
        """Record trained weights, to be registered under a name."""
        self._append("model", path=str(path.relative_to(self.path.parent)), name=name)

    def dataset(self, *, name: str, digest: str, context: str, source: str) -> None:
        """Record a dataset that the run reads, by its fingerprint, and what for."""
        self._append("dataset", name=name, digest=digest, context=context, source=source)

    def status(self, status: Status, reason: str = "") -> None:
        """Record that the run started or ended, and why it failed."""
        self._append("status", status=status, reason=reason)

    def _append(self, kind: str, **content: Any) -> None:
        line = json.dumps({"kind": kind, "time": int(time.time() * 1000), **content})
        with self.path.open("a") as file:
            file.write(line + "\n")


def spool_path(folder: Path) -> Path:
    """Where a stage's record is."""
    return folder / "events.jsonl"


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The events from a byte offset on, each with the offset behind it; a torn last line is left alone."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield offset, json.loads(line)
