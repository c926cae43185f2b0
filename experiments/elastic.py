"""Measure how much training time is lost when workers and nodes are lost, added and preempted."""

import json
import tempfile
from pathlib import Path

from benchmarks.configs import DisturbanceConfig

from lola.core.cli import launch
from lola.core.waiting import loading


def main(config: DisturbanceConfig) -> None:
    """Train on nodes of this machine while workers are killed and nodes are lost, added and preempted."""
    with loading():
        from benchmarks.disturbance import disturbance_table, measure_disturbances

    with tempfile.TemporaryDirectory() as root:
        rows = measure_disturbances(config, Path(root), lambda text: print(text, flush=True))
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "elastic.json").write_text(json.dumps(rows, indent=1, allow_nan=False))
    text = disturbance_table(rows)
    (folder / "elastic.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    launch(main, {"all": DisturbanceConfig}, default="all")
