import io

from rich.console import Console

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
