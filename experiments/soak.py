"""Kill random processes of the smallest sweep, and compare its tables with an undisturbed one's."""

import json
import sys
from pathlib import Path

from benchmarks.configs import SoakConfig

from lola.core.cli import launch_alone
from lola.core.waiting import loading


def main(config: SoakConfig) -> None:
    """Kill processes of a sweep at random moments; its tables must equal those of an undisturbed sweep."""
    with loading():
        from benchmarks.soak import soak

    command = [sys.executable, str(Path(__file__).resolve().with_name("sweep_compression.py")), "smoke"]
    summary = soak(config, command, lambda text: print(text, flush=True))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    launch_alone(main, SoakConfig)
