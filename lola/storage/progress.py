"""Progress of a sweep on the console, read from the stages' records."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape

from lola.core.waiting import LONGEST_S
from lola.storage.event_log import end_offset
from lola.storage.follow import Events
from lola.storage.remote import AnyPath

SILENCE_S = 11.0  # seconds without a word after which the console says what is at work
LOOK_S = 1.0
SHOWN = {"train/loss": "train", "valid/loss": "valid", "train/seconds_per_step": "s/step"}


class Progress:
    """Prints one line for whatever a stage reports; a sink of event logs.

    Arguments:
        console: Where to print.
    """

    name = "the console"

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = self.said = time.monotonic()
        self._shown: dict[AnyPath, tuple[str, int]] = {}  # names and last steps

    def log(self, text: str) -> None:
        """Print a line with the time since the start, as it is."""
        self._print(escape(text))

    def _print(self, markup: str) -> None:
        self.said = time.monotonic()
        minutes, seconds = divmod(int(self.said - self.started), 60)
        self.console.print(
            f"[dim]{minutes:02d}:{seconds:02d}[/dim]  {markup}", highlight=False, soft_wrap=True
        )

    @contextlib.contextmanager
    def reporting(self, at_work: Callable[[], str]) -> Iterator[None]:
        """Say what is at work whenever nothing was said for `SILENCE_S` seconds, while the block runs.

        The same line is said again after intervals that double, up to a minute, until another is said.
        """
        stop = threading.Event()

        def watch() -> None:
            repeated, at, interval = "", self.said, SILENCE_S
            while not stop.wait(LOOK_S):
                if self.said != at:
                    repeated = ""
                silence = time.monotonic() - self.said
                if silence <= SILENCE_S:
                    continue
                with contextlib.suppress(Exception):  # a word that cannot be said must not end the work
                    text = at_work()
                    if text != repeated:
                        interval = SILENCE_S
                    if silence > interval:
                        self.log(text)
                        repeated, at, interval = text, self.said, min(2 * interval, LONGEST_S)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def follow(self, folder: AnyPath, name: str, total: int) -> None:
        """Name a stage whose log is shown, `total` being its last step."""
        self._shown.setdefault(folder, (name, total))

    def start_offset(self, folder: AnyPath) -> int:
        """What a stage reported before is not shown again."""
        return end_offset(folder)

    def take(self, folder: AnyPath, offset: int, events: Events) -> int:
        """Show what is new."""
        name, total = self._shown[folder]
        for _, event in events:
            line = _line(event, total)
            if line:
                self._print(f"[bold]{escape(name)}[/bold]  {escape(line)}")
        return events[-1][0]

    def end_poll(self) -> None:
        """Nothing is shown of stages that report nothing."""


def _line(event: dict[str, Any], total: int) -> str:
    if event["kind"] == "status":
        reason = event.get("reason", "")
        return event["status"].lower() + (f": {reason}" if reason else "")
    if event["kind"] == "notice":
        return event["text"]
    if event["kind"] != "metrics":
        return ""
    values = event["values"]
    shown = [f"{label} {values[name]:.4g}" for name, label in SHOWN.items() if name in values]
    shown += [
        f"{count:.0f} rollouts did not stay finite"
        for name, count in values.items()
        if name.endswith("/diverged_rollouts") and count
    ]
    if values.get("train/skipped"):
        shown.append(f"skipped {values['train/skipped']:.0f}")
    if not shown and not any(name.startswith("progress/") for name in values):
        return ""
    return "  ".join([f"{event['step']}/{total}", *shown])
