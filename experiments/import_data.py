"""Import arrays as a dataset: `import_data.py FILE... --output FOLDER --name NAME --boundaries KIND`."""

from lola.core.cli import launch_alone
from lola.core.waiting import loading
from lola.data.import_config import ImportConfig


def main(config: ImportConfig) -> None:
    """Convert NumPy, NetCDF or Zarr files to a dataset in The Well's format.

    Trajectories are read and written one after another, a few states at a time.
    """
    with loading():
        from lola.data.importing import import_data

    folder = import_data(config, print)
    print(f"dataset: {folder}")
    print(f"describe it: python experiments/describe.py {folder}")


if __name__ == "__main__":
    launch_alone(main, ImportConfig)
