import io
import time

from rich.console import Console

import lola.progress
from lola.progress import Progress
from lola.spool import Spool, read_events


def test_paths_with_brackets_are_shown_as_they_are(tmp_path):
    text = io.StringIO()
    progress = Progress(Console(file=text, width=40))
    spool = Spool(tmp_path)
    spool.notice("/data/a [x] [/red] b/file is corrupt")
    progress.follow(tmp_path, "stage [bold]", 3)
    progress.take(tmp_path, 0, list(read_events(tmp_path)))
    progress.say("report: /data/a [x] [/red] 50%")
    first, second = text.getvalue().splitlines()
    assert first.endswith("stage [bold]  /data/a [x] [/red] b/file is corrupt")
    assert second.endswith("report: /data/a [x] [/red] 50%")


def test_a_silent_console_says_what_is_at_work(monkeypatch):
    """A word after every few seconds without one, whoever said it."""
    monkeypatch.setattr(lola.progress, "LOOK_S", 0.01)
    monkeypatch.setattr(lola.progress, "SILENCE_S", 0.1)
    output = io.StringIO()
    shown = Progress(Console(file=output, width=200))
    with shown.speaking(lambda: "diffusion 25/100"):
        for _ in range(8):
            shown.say("a stage's own word")
            time.sleep(0.02)
        assert "diffusion" not in output.getvalue()
        deadline = time.monotonic() + 5
        while output.getvalue().count("diffusion 25/100") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert output.getvalue().count("diffusion 25/100") >= 2
    said = output.getvalue()
    time.sleep(0.2)
    assert output.getvalue() == said
