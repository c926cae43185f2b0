"""Account for a command's CPU seconds: simulation, training steps, imports, Ray's processes and others."""

import sys

from benchmarks.configs import AccountConfig

from lola.core.cli import launch_alone
from lola.core.waiting import loading


def main(config: AccountConfig) -> None:
    """Run a command and print what its processes used, CPU seconds by purpose and memory; Linux only.

    Processes are sampled from /proc. Give the command in quotes; a Ray cluster that runs already is not seen.
    """
    with loading():
        from benchmarks.account import run_account

    text, code = run_account(config)
    print(text)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    launch_alone(main, AccountConfig)
