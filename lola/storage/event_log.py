"""An append-only record of what happened in a stage: parameters, tags, metrics, artifacts, status.

The record is one JSON value per line in `events.jsonl`. It is the truth about a run; a tracking server is
a view that can be rebuilt from it. A line torn by a crash is dropped when the record is opened again. After a
power cut the last metrics may be missing; everything else was on the disk before the work went on.

Objects cannot be appended to. The record of a stage on an object store is therefore on the disk of the
machine that makes the stage, among its copies, and uploaded whole: at once when the stage starts or ends, and
otherwise at most every `PUBLISH` seconds. If that machine is lost, so are the events since; the metrics of
training come again when it goes on from its last checkpoint. Other machines look for more every `LOOK`
seconds.
"""

import contextlib
import hashlib
import io
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from upath import UPath

from lola.core.errors import LolaError
from lola.core.filesystem import Lock, make_folder, replace, sync, translate_os_errors
from lola.core.strict_json import dumps, null_if_not_finite
from lola.storage.remote import AnyPath, mirrored, read_whole, scratch_folder, translate_fs_errors, upload

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
NAME = "events.jsonl"
LOSABLE = ("metrics",)  # events that a power cut may take: waiting for the disk with each would cost steps
PUBLISH = 20.0
LOOK = 60.0
START = b'{"kind": '  # of every event
STATUS = START + b'"status"'
TAIL = 65536  # bytes of a log that hold its last event
DIGESTED = 4096  # bytes before an offset that identify a log
_looked: dict[str, float] = {}  # when this process looked last, by folder


class EventLog:
    """The writer of a record; one process at a time.

    Arguments:
        folder: The stage's folder.
    """

    def __init__(self, folder: AnyPath) -> None:
        self.folder, self.path = folder, event_log_path(folder)
        with translate_os_errors(self.path):
            make_folder(self.path.parent)
            if isinstance(folder, UPath) and not self.path.exists():
                _fetch(folder)
            if self.path.exists():
                _drop_torn_end(self.path)

    @classmethod
    def resume(cls, folder: AnyPath) -> "EventLog":
        """The writer of the record of a stage whose lease this process holds, wherever it was before."""
        if isinstance(folder, UPath):
            _fetch(folder)
        return cls(folder)

    def describe(self, *, name: str, tags: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """Record what the run is."""
        self._append("describe", name=name, tags=dict(tags), parameters=dict(parameters))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics at a step; those that are not finite are null, since JSON has no word for them."""
        self._append("metrics", step=step, values=null_if_not_finite(dict(values)))

    def notice(self, text: str) -> None:
        """Record what people should know: what was corrupt, and is made again."""
        self._append("notice", text=text)

    def artifact(self, path: AnyPath) -> None:
        """Record a file of the stage's folder."""
        self._append("artifact", path=_within(self.folder, path))

    def model(self, path: AnyPath, name: str) -> None:
        """Record trained weights, to be registered under a name."""
        self._append("model", path=_within(self.folder, path), name=name)

    def dataset(self, *, name: str, digest: str, context: str, source: str) -> None:
        """Record a dataset that the run reads, by its fingerprint, and what for."""
        self._append("dataset", name=name, digest=digest, context=context, source=source)

    def stage(self, path: str, fingerprint: str) -> None:
        """Record that a stage belongs to a sweep, by its folder in the storage root."""
        self._append("stage", path=path, fingerprint=fingerprint)

    def report(self, path: str) -> None:
        """Record the folder of a sweep's report, in the storage root."""
        self._append("report", path=path)

    def status(self, status: Status, reason: str = "") -> None:
        """Record that the run started or ended, and why it failed."""
        self._append("status", status=status, reason=reason)
        if isinstance(self.folder, UPath):
            self._publish(self.folder)

    def _append(self, kind: str, **content: Any) -> None:
        line = dumps({"kind": kind, "time": int(time.time() * 1000), **content})
        with translate_os_errors(self.path), _alone(self.folder):
            with self.path.open("a") as file:
                file.write(line + "\n")
            if kind not in LOSABLE:
                sync(self.path)
        if isinstance(self.folder, UPath) and time.time() - _time(self._published) > PUBLISH:
            with contextlib.suppress(LolaError):  # an outage: the next time will do
                self._publish(self.folder)

    @property
    def _published(self) -> Path:
        """A file of the time when the record was uploaded last, by whatever process of this machine."""
        return self.path.with_suffix(".published")

    def _publish(self, folder: UPath) -> None:
        self._published.touch()
        upload(self.path, folder / NAME)


def _drop_torn_end(path: Path) -> None:
    """Cut a record behind its last whole line: a crash tears what follows, a power cut makes it zeros."""
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    while end and _event(whole[whole.rfind(b"\n", 0, end - 1) + 1 : end]) is None:
        end = whole.rfind(b"\n", 0, end - 1) + 1
    if end < len(whole):
        with path.open("r+b") as file:
            file.truncate(end)


def _within(folder: AnyPath, path: AnyPath) -> str:
    """The name of a file in a folder."""
    return str(path)[len(str(folder)) + 1 :]


def _time(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _alone(folder: AnyPath) -> contextlib.AbstractContextManager[Any]:
    """Keeps this machine's copy of a record from being replaced while it is written."""
    if not isinstance(folder, UPath):
        return contextlib.nullcontext()
    return Lock(mirrored(folder) / ".lock")


def _fetch(folder: UPath) -> None:
    """Replace this machine's copy of a record by the uploaded one, unless it goes on from that."""
    path = event_log_path(folder)
    path.parent.mkdir(exist_ok=True)
    with translate_fs_errors(folder), _alone(folder):
        try:
            uploaded = read_whole(folder / NAME)
        except FileNotFoundError:
            return
        if path.exists() and path.read_bytes().startswith(uploaded):
            return
        with scratch_folder() as tmp_path:
            (tmp_path / NAME).write_bytes(uploaded)
            replace(tmp_path / NAME, path)


def event_log_path(folder: AnyPath) -> Path:
    """Where a stage's record is on this machine."""
    return (mirrored(folder) if isinstance(folder, UPath) else folder) / NAME


def event_log_size(folder: AnyPath) -> int:
    """The bytes of a stage's record so far."""
    if isinstance(folder, UPath):
        _look(folder)
    path = event_log_path(folder)
    return path.stat().st_size if path.exists() else 0


def _look(folder: UPath) -> None:
    """Fetch a record if more of it was uploaded than this machine has, looking every `LOOK` seconds."""
    now = time.monotonic()
    if now - _looked.get(str(folder), -LOOK) < LOOK:
        return
    _looked[str(folder)] = now
    path, uploaded = event_log_path(folder), folder / NAME
    with contextlib.suppress(LolaError, FileNotFoundError), translate_fs_errors(folder):
        size = uploaded.fs.info(uploaded.path)["size"]
        if size > (path.stat().st_size if path.exists() else 0):
            _fetch(folder)


def read_events(folder: AnyPath, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The events of a stage from a byte offset on, each with the offset behind it.

    A line that is not complete yet is left for later. Of a line that a crash cut off and that another process
    went on with, the part that is an event is read.
    """
    if isinstance(folder, UPath):
        _look(folder)
    path = event_log_path(folder)
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            event = _event(line)
            if event is not None:
                yield offset, event


def _event(line: bytes) -> dict[str, Any] | None:
    """The event of a line, or of its end; None if it holds none."""
    for text in (line, line[line.rfind(START) :]):
        with contextlib.suppress(ValueError):
            event = json.loads(text)
            if isinstance(event, dict) and "kind" in event:
                return _with_nan(event)
    return None


def _with_nan(event: dict[str, Any]) -> dict[str, Any]:
    """An event as it was recorded: what is null among its metrics was not finite, and is NaN."""
    if event["kind"] == "metrics":
        values = event["values"].items()
        event["values"] = {name: math.nan if value is None else value for name, value in values}
    return event


def last_status(folder: AnyPath) -> Status | None:
    """The last status of a stage's log; None if it has none."""
    if isinstance(folder, UPath):
        _look(folder)
    path = event_log_path(folder)
    content = path.read_bytes() if path.exists() else b""
    end = content.rfind(b"\n") + 1
    while (start := content.rfind(STATUS, 0, end)) >= 0:
        event = _event(content[start : content.index(b"\n", start) + 1])
        if event is not None:
            return event["status"]
        end = start
    return None


def end_offset(folder: AnyPath) -> int:
    """The offset behind the last event of a stage's log."""
    size = event_log_size(folder)
    for length in (min(size, TAIL), size):
        with event_log_path(folder).open("rb") if size else io.BytesIO() as file:
            file.seek(size - length)
            tail = file.read(length)
        end = tail.rfind(b"\n") + 1
        while end:
            start = tail.rfind(b"\n", 0, end - 1) + 1
            if _event(tail[start:end]) is not None:
                return size - length + end
            end = start
    return 0


def log_digest(folder: AnyPath, offset: int) -> str:
    """What tells a log from another up to an offset, by its last events; empty if the log is shorter."""
    path = event_log_path(folder)
    with path.open("rb") as file:
        file.seek(max(0, offset - DIGESTED))
        before = file.read(min(offset, DIGESTED))
    return hashlib.sha256(before).hexdigest()[:16] if len(before) == min(offset, DIGESTED) else ""
