"""A folder of Well datasets, wherever it is, and what is used of it."""

import dataclasses

from lola.data.statistics import with_statistics
from lola.data.systems import System
from lola.data.well.header import infer_system
from lola.data.well.splits import WellSplit, open_split, split_files
from lola.storage.remote import AnyPath
from lola.storage.stages import Location


@dataclasses.dataclass(frozen=True)
class Datasets:
    """A folder of Well datasets, and what is used of it."""

    root: Location  # the folder, a path or a URL
    include: tuple[str, ...] = ()  # only files whose name contains one of these are used, if there are any
    exclude: tuple[
        str, ...
    ] = ()  # files whose name contains one of these are not, nor trajectories `FILE#47`
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

    def infer(self, dataset: str, split: str = "train") -> System:
        """The system of any dataset: all fields of its first file, those that are constant in time last.

        Raises:
            LolaError: There is no such dataset, its files cannot be reached, or they are not of The Well.
        """
        files = split_files(self.root, (dataset,), split, self.include, self.exclude)
        return infer_system(files[0][1], dataset)
