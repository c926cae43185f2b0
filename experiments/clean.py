"""Free space: `clean.py --unused [--delete] [--storage ROOT]`; needs no cluster."""

from lola.core.cli import launch_alone
from lola.storage.cleaning import CleanConfig, clean


def main(config: CleanConfig) -> None:
    """List stages that no finished sweep needs, and files of killed processes; --delete deletes them."""
    clean(config, lambda text: print(text, flush=True))


if __name__ == "__main__":
    launch_alone(main, CleanConfig)
