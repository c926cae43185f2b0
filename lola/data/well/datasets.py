"""A folder of Well datasets, wherever it is, and what is used of it."""

import dataclasses

from lola.core.errors import DataError, MissingDataError
from lola.data.statistics import with_statistics
from lola.data.systems import SPLITS, System
from lola.data.well.header import infer_system
from lola.data.well.selection import check_selection, split_files
from lola.data.well.splits import WellSplit, open_split
from lola.storage.remote import AnyPath
from lola.storage.stages import Location


@dataclasses.dataclass(frozen=True)
class Datasets:
    """A folder of Well datasets, and what is used of it."""

    root: Location  # the folder, a path or a URL
    include: tuple[str, ...] = ()  # only files whose name contains one of these are used, if there are any
    # files whose name contains one of these are not, nor trajectories `FILE#47`
    exclude: tuple[str, ...] = ()
    # the finished stage that holds the statistics of systems; None for the systems' own
    statistics: AnyPath | None = None

    def open(self, system: System, split: str, faults: dict[str, str] | None = None) -> WellSplit:
        """A split of a system, with its statistics; arguments are as for `open_split`.

        Raises:
            LolaError: As for `open_split`; or the statistics do not exist.
        """
        if self.statistics is not None:
            system = with_statistics(system, self.statistics)
        return open_split(self.root, system, split, include=self.include, exclude=self.exclude, faults=faults)

    def check(self, system: System) -> None:
        """Raise `ConfigError` if `include` or `exclude` names what none of a system's splits has."""
        check_selection(self.root, system.datasets, self.include, self.exclude)

    def infer(self, dataset: str) -> System:
        """The system of any dataset: all fields of its first file, those that are constant in time last.

        The file is of the training set, or of the next split if there is none. Corrupt ones are passed over:
        they are named when the split is opened.

        Raises:
            LolaError: There is no such dataset, its files cannot be reached, or none is of The Well.
        """
        faults: list[DataError] = []
        for split in SPLITS:
            try:
                files = split_files(self.root, (dataset,), split, self.include, self.exclude)
            except MissingDataError as error:
                faults.append(error)
                continue
            faults.clear()
            for _, path in files:
                try:
                    return infer_system(path, dataset)
                except DataError as error:
                    faults.append(error)
            break
        raise faults[0]
