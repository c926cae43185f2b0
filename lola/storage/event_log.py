"""An append-only log of what happened in a stage: parameters, tags, metrics, artifacts, status.

The log is one JSON value per line in `events.jsonl`. It is the source of truth about a run; a tracking server
is a view that can be rebuilt from it. A line that a crash cut off is dropped when the log is opened again.
After a power cut the last metrics may be missing; everything else was on the disk before the work continued.

Objects cannot be appended to. The log of a stage on an object store is therefore written on the disk of the
machine that makes the stage, in its cache folder, and uploaded as a whole: at once when the stage starts or
ends, and otherwise at most every `UPLOAD_INTERVAL_S` seconds. If that machine is lost, so are the events
since; the metrics of training are written again when it resumes from its last checkpoint. Other machines
check for more every `FETCH_INTERVAL_S` seconds.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from upath import UPath

from lola.core.errors import LolaError
from lola.core.filesystem import Lock, fsync_path, make_folder, replace, translate_os_errors
from lola.core.strict_json import dumps, null_if_not_finite
from lola.storage.remote import (
    AnyPath,
    local_cache_folder,
    read_bytes,
    temporary_folder,
    translate_fs_errors,
    upload,
)

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
FILE_NAME = "events.jsonl"
NOT_SYNCED = ("metrics", "curve", "progress", "waiting")
"""A power cut may lose these: waiting for the disk each time would slow training."""
UPLOAD_INTERVAL_S = 20.0
FETCH_INTERVAL_S = 60.0
EVENT_PREFIX = b'{"kind": '  # every event starts with this
STATUS_PREFIX = EVENT_PREFIX + b'"status"'
TAIL_BYTES = 65536  # bytes of a log that hold its last event
DIGEST_BYTES = 4096  # bytes before an offset that identify a log
EVENT_FIELDS: dict[str, dict[str, type]] = {
    "describe": {"name": str, "tags": dict, "parameters": dict},
    "metrics": {"step": int, "values": dict},
    "curve": {"name": str, "points": list},
    "progress": {"step": int},
    "notice": {"text": str},
    "waiting": {"text": str},
    "note": {"text": str},
    "view": {"name": str, "content": dict},
    "artifact": {"path": str},
    "model": {"path": str, "name": str},
    "dataset": {"name": str, "digest": str, "context": str, "source": str},
    "stage": {"path": str, "fingerprint": str},
    "report": {"path": str},
    "status": {"status": str},
}
"""What an event of each kind contains, in addition to `kind` and `time`."""
_last_fetch_s: dict[str, float] = {}  # when this process fetched last, by folder


class EventLog:
    """The writer of the log in a stage's folder; one process at a time."""

    def __init__(self, folder: AnyPath) -> None:
        self.folder, self.path = folder, event_log_path(folder)
        with translate_os_errors(self.path):
            make_folder(self.path.parent)
            if isinstance(folder, UPath) and not self.path.exists():
                _fetch(folder)
            if self.path.exists():
                _truncate_corrupt_end(self.path)

    @classmethod
    def resume(cls, folder: AnyPath) -> "EventLog":
        """The writer for a stage whose lease this process holds, on whichever machine it was made before."""
        if isinstance(folder, UPath):
            _fetch(folder)
        return cls(folder)

    def describe(self, *, name: str, tags: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """Record the name, tags and parameters of the run."""
        self._append("describe", name=name, tags=dict(tags), parameters=dict(parameters))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics at a step; those that are not finite become null, since JSON has no NaN."""
        self._append("metrics", step=step, values=null_if_not_finite(dict(values)))

    def curve(self, name: str, points: Sequence[tuple[int, float]]) -> None:
        """Record a metric at several steps, more often than reports do.

        Arguments:
            points: Steps and values, the last perhaps of the report that follows, whose value covers more
                steps: MLflow shows the curve's.
        """
        finite = [(step, value if math.isfinite(value) else None) for step, value in points]
        self._append("curve", name=name, points=finite)

    def progress(self, step: int) -> None:
        """Record how far the stage is, between its metrics."""
        self._append("progress", step=step)

    def note(self, text: str) -> None:
        """Record the run's description, in Markdown; the last one counts."""
        self._append("note", text=text)

    def view(self, name: str, content: Mapping[str, Any]) -> None:
        """Record a view of the runs of a sweep; the last one of a name counts.

        Arguments:
            content: What `lola.storage.views.View` holds.
        """
        self._append("view", name=name, content=dict(content))

    def notice(self, text: str) -> None:
        """Record a message for people, such as which file was corrupt and is made again."""
        self._append("notice", text=text)

    def waiting(self, text: str) -> None:
        """Record what the stage waits for, which holds until its next metrics, progress or status."""
        self._append("waiting", text=text)

    def artifact(self, path: AnyPath) -> None:
        """Record a file of the stage, or of another one, such as an evaluation of a model."""
        self._append("artifact", path=_relative_path(self.folder, path))

    def model(self, path: AnyPath, name: str) -> None:
        """Record trained weights, to be registered under a name."""
        self._append("model", path=_relative_path(self.folder, path), name=name)

    def dataset(self, *, name: str, digest: str, context: str, source: str) -> None:
        """Record a dataset that the run reads, by its fingerprint, and its use (`context`)."""
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
            self._upload(self.folder)

    def _append(self, kind: str, **content: Any) -> None:
        line = dumps({"kind": kind, "time": int(time.time() * 1000), **content})
        with translate_os_errors(self.path), _write_lock(self.folder):
            with self.path.open("a") as file:
                file.write(line + "\n")
            if kind not in NOT_SYNCED:
                fsync_path(self.path)
        if isinstance(self.folder, UPath) and time.time() - _time(self._upload_marker) > UPLOAD_INTERVAL_S:
            with contextlib.suppress(LolaError):  # an outage: the next event tries again
                self._upload(self.folder)

    @property
    def _upload_marker(self) -> Path:
        """A file whose time is that of the last upload by any process of this machine."""
        return self.path.with_suffix(".published")

    def _upload(self, folder: UPath) -> None:
        self._upload_marker.touch()
        upload(self.path, folder / FILE_NAME)


def _truncate_corrupt_end(path: Path) -> None:
    """Truncate a log after its last complete event: a crash leaves part of a line, a power cut zeros."""
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    while end and _parse(whole[whole.rfind(b"\n", 0, end - 1) + 1 : end]) is None:
        end = whole.rfind(b"\n", 0, end - 1) + 1
    if end < len(whole):
        with path.open("r+b") as file:
            file.truncate(end)


def _relative_path(folder: AnyPath, path: AnyPath) -> str:
    """A file's path within a folder, or from a local one on."""
    if isinstance(path, Path) and isinstance(folder, Path):
        return os.path.relpath(path, folder)
    return str(path)[len(str(folder)) + 1 :]


def _time(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _write_lock(folder: AnyPath) -> contextlib.AbstractContextManager[Any]:
    """Keeps this machine's copy of a log from being replaced while it is written."""
    if not isinstance(folder, UPath):
        return contextlib.nullcontext()
    return Lock(local_cache_folder(folder) / ".lock")


def _fetch(folder: UPath) -> None:
    """Replace this machine's copy of a log by the uploaded one, unless the copy continues that."""
    path = event_log_path(folder)
    path.parent.mkdir(exist_ok=True)
    with translate_fs_errors(folder), _write_lock(folder):
        try:
            uploaded = read_bytes(folder / FILE_NAME)
        except FileNotFoundError:
            return
        if path.exists() and path.read_bytes().startswith(uploaded):
            return
        with temporary_folder() as tmp_path:
            (tmp_path / FILE_NAME).write_bytes(uploaded)
            replace(tmp_path / FILE_NAME, path)


def event_log_path(folder: AnyPath) -> Path:
    """The path of a stage's log on this machine."""
    return (local_cache_folder(folder) if isinstance(folder, UPath) else folder) / FILE_NAME


def event_log_size(folder: AnyPath) -> int:
    path = _recent_path(folder)
    return path.stat().st_size if path.exists() else 0


def _recent_path(folder: AnyPath) -> Path:
    """The path of a log on this machine; a larger one is fetched at most every `FETCH_INTERVAL_S` seconds."""
    path, now = event_log_path(folder), time.monotonic()
    last = _last_fetch_s.get(str(folder), -FETCH_INTERVAL_S)
    if isinstance(folder, UPath) and now - last >= FETCH_INTERVAL_S:
        _last_fetch_s[str(folder)] = now
        uploaded = folder / FILE_NAME
        with contextlib.suppress(LolaError, FileNotFoundError), translate_fs_errors(folder):
            size = uploaded.fs.info(uploaded.path)["size"]
            if size > (path.stat().st_size if path.exists() else 0):
                _fetch(folder)
    return path


def read_events(folder: AnyPath, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The events of a stage from a byte offset on, each with the offset where its line ends.

    A line that is not complete yet is not read. A corrupt line is skipped; if its end is an event, because
    another process continued a line that a crash cut off, that event is read.
    """
    path = _recent_path(folder)
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            event = _parse(line)
            if event is not None:
                yield offset, event


def _parse(line: bytes) -> dict[str, Any] | None:
    """The event of a line, or of its end; None if it has none."""
    for text in (line, line[line.rfind(EVENT_PREFIX) :]):
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(text)
            if _is_event(event):
                if event["kind"] == "metrics":  # null was not finite
                    event["values"] = {name: _number(value) for name, value in event["values"].items()}
                elif event["kind"] == "curve":
                    event["points"] = [(step, _number(value)) for step, value in event["points"]]
                return event
    return None


def _is_event(value: Any) -> bool:
    """Whether a JSON value contains all that its kind of event has; a corrupt byte may rename a key."""
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return False
    content = {"time": int, **EVENT_FIELDS.get(value["kind"], {})}
    if value["kind"] not in EVENT_FIELDS or any(
        type(value.get(name)) is not content[name] for name in content
    ):
        return False
    if value["kind"] == "status":
        return value["status"] in get_args(Status)
    numbers = list(value["values"].values()) if value["kind"] == "metrics" else []
    if value["kind"] == "curve":
        if not all(
            type(point) is list and len(point) == 2 and type(point[0]) is int for point in value["points"]
        ):
            return False
        numbers = [number for _, number in value["points"]]
    return all(number is None or type(number) in (int, float) for number in numbers)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def last_status(folder: AnyPath) -> Status | None:
    """The last status of a stage's log; None if it has none."""
    path = _recent_path(folder)
    content = path.read_bytes() if path.exists() else b""
    end = content.rfind(b"\n") + 1
    while (start := content.rfind(STATUS_PREFIX, 0, end)) >= 0:
        event = _parse(content[start : content.index(b"\n", start) + 1])
        if event is not None and event["kind"] == "status":  # else of a line that a corrupt byte has joined
            return event["status"]
        end = start
    return None


def end_offset(folder: AnyPath) -> int:
    """The offset where the last event of a stage's log ends."""
    size = event_log_size(folder)
    for length in (min(size, TAIL_BYTES), size):
        with event_log_path(folder).open("rb") if size else io.BytesIO() as file:
            file.seek(size - length)
            tail = file.read(length)
        end = tail.rfind(b"\n") + 1
        while end:
            start = tail.rfind(b"\n", 0, end - 1) + 1
            if _parse(tail[start:end]) is not None:
                return size - length + end
            end = start
    return 0


def log_digest(folder: AnyPath, offset: int) -> str:
    """A hash that identifies a log up to an offset, by its last events; empty if the log is shorter."""
    path = event_log_path(folder)
    with path.open("rb") as file:
        file.seek(max(0, offset - DIGEST_BYTES))
        before = file.read(min(offset, DIGEST_BYTES))
    return hashlib.sha256(before).hexdigest()[:16] if len(before) == min(offset, DIGEST_BYTES) else ""
