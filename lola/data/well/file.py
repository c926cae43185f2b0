"""Single files in The Well's layout."""

from lola.data.systems import System
from lola.data.well.header import read_header
from lola.data.well.splits import WellSplit, join_files
from lola.storage.stages import Location


def open_well_file(path: Location, system: System) -> WellSplit:
    """Open and validate one file; its dataset and split are those of its folders, `<dataset>/data/<split>/`.

    Raises:
        DataError: The file is missing, torn or foreign.
        StorageError: The file cannot be reached.
    """
    *_, dataset, _, split, _ = ["", "", "", *str(path).split("/")]
    return join_files([read_header(path, dataset, split, system)], system)
