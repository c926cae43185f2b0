"""The configuration of an export of models."""

import dataclasses

from lola.core.config import Config, Size, runtime_field


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(Config):
    """The choice of models that are kept.

    Arguments:
        system: The physical system whose emulators are chosen from: a name, the folder of a dataset, or a
            description file.
        trajectories: How many trajectories the file of initial states has.
        states: How many states follow the first of each.
        output: The folder to write, which must be new.
        storage: The storage root; else LOLA_STORAGE, else ~/lola-storage.
        well: The folder of Well datasets that they were trained on.
    """

    system: str = "euler"
    trajectories: Size = 2
    states: Size = 20
    output: str = runtime_field("experiments/results/models")
    storage: str | None = runtime_field(None)
    well: str = runtime_field("well")
