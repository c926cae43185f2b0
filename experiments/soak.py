"""Kill random processes of the smallest sweep, and compare its tables with an undisturbed one's."""

import json
from pathlib import Path

from benchmarks.configs import SoakConfig

from lola.core.cli import launch_alone
from lola.core.waiting import loading


def main(config: SoakConfig) -> None:
    """Kill processes of a sweep at random moments; its tables must equal those of an undisturbed sweep."""
    with loading():
        from benchmarks.soak import smoke, soak

    command = smoke(Path(__file__).with_name("sweep_compression.py").resolve())
    summary = soak(config, command, lambda text: print(text, flush=True))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    launch_alone(main, SoakConfig)
