"""Measure how much training time is lost when workers and nodes are lost, added and preempted."""

import json
import tempfile
from pathlib import Path

from benchmarks.configs import DisturbanceConfig
from benchmarks.measure import new_folder

from lola.core.cli import launch
from lola.core.waiting import loading

FILES = ("elastic.json", "elastic.md")


def main(config: DisturbanceConfig) -> None:
    """Train on nodes of this machine while workers are killed and nodes are lost, added and preempted."""
    folder = new_folder(config.output, FILES, config.overwrite)
    with loading():
        from benchmarks.disturbance import disturbance_table, measure_disturbances

    with tempfile.TemporaryDirectory() as root:
        rows = measure_disturbances(config, Path(root), lambda text: print(text, flush=True))
    (folder / FILES[0]).write_text(json.dumps(rows, indent=1, allow_nan=False))
    text = disturbance_table(rows)
    (folder / FILES[1]).write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    launch(main, {"all": DisturbanceConfig}, default="all")
