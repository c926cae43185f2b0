"""Sizes of networks that follow from the data: what a preset configures for a system that it does not know.

On `d` grid axes an autoencoder down-samples by a factor `f` along each, and with `n` latent channels of
states with `C` channels compresses by `C f^d / n`. `f` is the largest power of two up to 16 (32 for planes of
more than 2^15 cells, 8 for volumes) that divides every axis and leaves 4 cells of it; it is at least 4.
"""

import dataclasses
import math

from lola.core.errors import MissingDataError
from lola.data.description import PAPER, get_system
from lola.data.systems import System
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.storage.stages import resolve_storage, well_folder
from lola.workflows.sweep import SweepConfig

LARGE_PLANE = 2**15  # cells
RATES = (10, 40, 160)
MAX_BLOCK = 51  # states encoded at once


@dataclasses.dataclass(frozen=True)
class DataSizes:
    """A system, and sizes of its data where a preset follows them.

    Arguments:
        system: The physical system.
        grid: Cells along each grid axis; empty for the paper's systems, which presets know.
        steps: States of a trajectory.
    """

    system: System
    grid: tuple[int, ...] = ()
    steps: int = 0

    @classmethod
    def find(cls, reference: str, well: str, storage: str | None) -> "DataSizes":
        """Of what `--system`, `--well` and `--storage` name, read from the header of a file.

        Raises:
            LolaError: Nothing has the name, or its description or its files are faulty.
        """
        if reference in PAPER:
            return cls(get_system(reference))
        # here, since they import torch
        from lola.data.well.datasets import Datasets
        from lola.data.well.find import find_system
        from lola.data.well.header import read_header
        from lola.data.well.splits import split_files

        system, datasets = find_system(reference, Datasets(well_folder(resolve_storage(storage), well)))
        try:
            dataset, path = split_files(datasets.root, system.datasets, "train", (), ())[0]
        except MissingDataError:
            if system.published is None:
                raise
            return cls(system, system.published.grid, system.published.steps)
        header = read_header(path, dataset, "train", system)
        return cls(system, header.grid, header.steps)

    @property
    def factor(self) -> int:
        """The down-sampling factor `f` of an autoencoder."""
        most = 8 if len(self.grid) == 3 else 32 if math.prod(self.grid) > LARGE_PLANE else 16
        return next((f for f in (32, 16, 8) if f <= most and self._divides(f)), 4)

    def _divides(self, factor: int) -> bool:
        return all(size % factor == 0 and size >= 4 * factor for size in self.grid)

    def latent_channels(self, rates: tuple[int, ...] = RATES) -> tuple[int, ...]:
        """The powers of two that come nearest to compression rates, the lowest first."""
        values = len(self.system.channels) * self.factor ** len(self.grid)
        return tuple(dict.fromkeys(2 ** max(0, round(math.log2(values / rate))) for rate in rates))

    def autoencoder(self, *channels: int) -> AutoencoderConfig:
        """An autoencoder with the channels of its three levels; of the outer two of them in space."""
        levels = (channels[0], channels[-1]) if len(self.grid) == 3 else channels
        return AutoencoderConfig(
            channels=levels,
            blocks=(1,) * len(levels),
            patch_size=self.factor // 2 ** (len(levels) - 1),
            dropout=0.0,
        )

    def latent_network(self, network: TransformerConfig) -> TransformerConfig:
        """A transformer of latent states, with at most 8 tokens along the longest axis of a volume."""
        longest = max(self.grid) // self.factor
        return network.replace(patch_size=(1, 2, 2, 2)) if len(self.grid) == 3 and longest >= 8 else network

    def pixel_solver(self, network: TransformerConfig) -> NeuralSolverConfig | None:
        """A neural solver of the fields; None of a volume, whose tokens would be too many."""
        if len(self.grid) == 3:
            return None
        return NeuralSolverConfig(network=network.replace(patch_size=(1, *(self.factor,) * len(self.grid))))

    @property
    def block(self) -> int:
        """States that an autoencoder encodes at once."""
        return min(MAX_BLOCK, -(-self.steps // 2))


def fitted(config: SweepConfig, data: DataSizes, channels: tuple[int, ...]) -> SweepConfig:
    """A preset with the networks that fit the data, of the widths that it has.

    Arguments:
        config: The preset, as it is for the paper's systems.
        data: The data.
        channels: The channels of the autoencoder's levels.
    """
    if not data.grid:
        return config
    network = config.neural_solver.network
    assert isinstance(network, TransformerConfig)
    latent = data.latent_network(network)
    return config.replace(
        latent_channels=data.latent_channels()[: len(config.latent_channels)],
        autoencoder=data.autoencoder(*channels),
        cache=config.cache.replace(block=data.block),
        diffusion=config.diffusion.replace(network=latent),
        neural_solver=config.neural_solver.replace(network=latent),
        pixel=data.pixel_solver(network),
    )
