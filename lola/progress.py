"""Progress of a sweep on the console, read from the stages' records."""

import dataclasses
import time
from typing import Any

from rich.console import Console
from rich.markup import escape

from lola.remote import AnyPath
from lola.spool import read_events, spool_size

SHOWN = {"train/loss": "train", "valid/loss": "valid", "train/seconds_per_step": "s/step"}


@dataclasses.dataclass
class _Followed:
    name: str
    total: int
    offset: int


class Progress:
    """Prints one line for whatever a stage reports.

    Arguments:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self._followed: dict[AnyPath, _Followed] = {}

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        self.console.print(f"[dim]{minutes:02d}:{seconds:02d}[/dim]  {text}", highlight=False, soft_wrap=True)

    def follow(self, folder: AnyPath, name: str, total: int) -> None:
        """Show what a stage reports from now on, `total` being its last step."""
        self._followed.setdefault(folder, _Followed(name, total, spool_size(folder)))

    def poll(self) -> None:
        """Show what is new."""
        for folder, followed in self._followed.items():
            for offset, event in read_events(folder, followed.offset):
                followed.offset = offset
                line = _line(event, followed.total)
                if line:
                    self.say(f"[bold]{escape(followed.name)}[/bold]  {escape(line)}")


def _line(event: dict[str, Any], total: int) -> str:
    if event["kind"] == "status":
        reason = event.get("reason", "")
        return event["status"].lower() + (f": {reason}" if reason else "")
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
