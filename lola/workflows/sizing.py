"""Sizes of networks that follow from the data: what a preset configures for a system that it does not know.

On `d` grid axes an autoencoder down-samples by factors `f_i`, and with `n` latent channels of states with
`C` channels compresses by `C f_1 ... f_d / n`. They are equal where a power of two from 8 to 16 (32 for
planes of more than 2^15 cells, 8 for volumes) divides every axis and leaves 4 cells of it: the largest. Else
each axis has its divisor nearest to that most, up to four times smaller or larger, and a multiple of the
down-sampling between levels if there is one.

Of fields of which a few states fill the memory, batches, blocks of an order and ensembles are smaller.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from lola.core.errors import DataError, MissingDataError
from lola.data.description import PAPER, get_system
from lola.data.systems import System
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.kinds import KINDS
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.storage.stages import resolve_storage, well_folder
from lola.training.config import TrainingConfig
from lola.training.order import GIGABYTE
from lola.workflows.sweep import ENSEMBLE_BYTES, SweepConfig

LARGE_PLANE = 2**15  # cells
RATES = (10, 80)
BATCH_SHARE = 4  # of its order's memory over a batch of windows
BATCH_CELLS = 512  # of latent states in a batch, one of each window, above which it has the fewest windows
FEWEST_WINDOWS = 16
MAX_BLOCK = 51  # states encoded at once
FLOAT = 4  # bytes


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
    def find(
        cls,
        reference: str,
        well: str,
        storage: str | None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> "DataSizes":
        """Of what these options name, read from the first header that can be read of the files in use.

        Raises:
            LolaError: Nothing has the name, or its description or its files are faulty.
        """
        if reference in PAPER:
            return cls(get_system(reference))
        # here, since they import torch
        from lola.data.well.datasets import Datasets
        from lola.data.well.find import find_system
        from lola.data.well.header import read_header
        from lola.data.well.selection import is_excluded, split_files

        datasets = Datasets(well_folder(resolve_storage(storage), well), tuple(include), tuple(exclude))
        system, datasets = find_system(reference, datasets)
        try:
            files = split_files(datasets.root, system.datasets, "train", include, exclude)
        except MissingDataError:
            if system.published is None:
                raise
            return cls(system, system.published.grid, system.published.steps)
        faults = []
        for dataset, path in files:
            try:
                header = read_header(path, dataset, "train", system)
            except DataError as error:  # named when the split is opened
                faults.append(error)
                continue
            if not all(is_excluded(name, exclude) for name in header.trajectory_ids):
                return cls(system, header.grid, header.steps)
        if not faults:
            raise DataError(f"--exclude {' '.join(exclude)} leaves out all trajectories; leave out fewer")
        raise faults[0]

    @property
    def factors(self) -> tuple[int, ...]:
        """The down-sampling factors of an autoencoder, along each grid axis."""
        most = 8 if len(self.grid) == 3 else 32 if math.prod(self.grid) > LARGE_PLANE else 16
        for factor in (32, 16, 8):
            if factor <= most and all(size % factor == 0 and size >= 4 * factor for size in self.grid):
                return (factor,) * len(self.grid)
        return tuple(self._nearest_divisor(size, most) for size in self.grid)

    def _nearest_divisor(self, size: int, factor: int) -> int:
        """The divisor of an axis that comes nearest to a factor; a power of two if all are far from it."""

        def distance(divisor: int) -> float:
            return abs(math.log2(divisor / factor))

        found = [f for f in range(1, size // 4 + 1) if size % f == 0 and distance(f) <= 2]
        found = [f for f in found if f % self._stride == 0] or found
        return min(found, key=distance, default=self._stride)

    @property
    def _levels(self) -> int:
        """The levels of an autoencoder."""
        return 2 if len(self.grid) == 3 else 3

    @property
    def _stride(self) -> int:
        """What the levels of an autoencoder down-sample by after its patches."""
        return 2 ** (self._levels - 1)

    @property
    def latent_grid(self) -> tuple[int, ...]:
        """Cells of a latent state along each grid axis."""
        return tuple(size // factor for size, factor in zip(self.grid, self.factors, strict=True))

    def latent_channels(self, rates: tuple[int, ...] = RATES) -> tuple[int, ...]:
        """The powers of two that come nearest to compression rates, the lowest first."""
        values = len(self.system.channels) * math.prod(self.factors)
        return tuple(dict.fromkeys(2 ** max(0, round(math.log2(values / rate))) for rate in rates))

    def autoencoder(self, *channels: int) -> AutoencoderConfig:
        """An autoencoder with the channels of its three levels; of the outer two of them in space."""
        levels = (channels[0], channels[-1]) if self._levels == 2 else channels
        strided = [factor % self._stride == 0 for factor in self.factors]
        patches = zip(self.factors, strided, strict=True)
        return AutoencoderConfig(
            channels=levels,
            blocks=(1,) * self._levels,
            patch_size=_one_if_equal(f // self._stride if by_stride else f for f, by_stride in patches),
            stride=_one_if_equal(2 if by_stride else 1 for by_stride in strided),
            dropout=0.0,
        )

    def latent_network(self, network: TransformerConfig) -> TransformerConfig:
        """A transformer of latent states, of half as many tokens along the axes of a large volume."""
        cells = self.latent_grid
        halves = [2 if size % 2 == 0 else 1 for size in cells]
        large = len(cells) == 3 and max(cells) >= 8 and max(halves) == 2
        return network.replace(patch_size=(1, *halves)) if large else network

    def pixel_solver(self, solver: NeuralSolverConfig) -> NeuralSolverConfig | None:
        """The latent neural solver, of the fields; None of a volume, whose tokens would be too many."""
        if len(self.grid) == 3:
            return None
        network = solver.network
        assert isinstance(network, TransformerConfig)
        return solver.replace(network=network.replace(patch_size=(1, *self.factors)))

    @property
    def block(self) -> int:
        """States that an autoencoder encodes at once."""
        return min(MAX_BLOCK, -(-self.steps // 2))

    @property
    def state_bytes(self) -> int:
        """Bytes of a state."""
        return FLOAT * len(self.system.channels) * math.prod(self.grid)

    def field_training(self, training: TrainingConfig) -> TrainingConfig:
        """A training on single states, two blocks and a batch of which fit in the memory of its order."""
        held = max(1, round(training.order.memory * GIGABYTE) // self.state_bytes)
        return training.replace(
            batch_size=min(training.batch_size, _power_of_two(held)),
            order=training.order.replace(block=min(training.order.block, max(1, held // 2))),
        )

    def windows(self, training: TrainingConfig) -> TrainingConfig:
        """A training on windows, fewer of them at once the more tokens a state has."""
        fit = BATCH_CELLS // math.prod(self.latent_grid)
        return training.replace(
            batch_size=min(training.batch_size, max(FEWEST_WINDOWS, _power_of_two(max(1, fit))))
        )

    def latent_training(self, training: TrainingConfig, state_bytes: int, window: int) -> TrainingConfig:
        """A training on windows of latent states, whose order holds two trajectories or four batches."""
        training = self.windows(training)
        least = math.ceil(2 * self.steps * state_bytes / GIGABYTE)
        memory = max(training.order.memory, float(least))
        held = max(1, int(memory * GIGABYTE / BATCH_SHARE) // (window * state_bytes))
        return training.replace(
            batch_size=min(training.batch_size, _power_of_two(held)),
            order=training.order.replace(memory=memory),
        )

    def members(self, most: int, state_bytes: int) -> int:
        """The members of an ensemble of latent trajectories that an evaluation can hold."""
        return min(most, _power_of_two(max(2, int(ENSEMBLE_BYTES) // (self.steps * state_bytes))))


def _one_if_equal(sizes: Iterable[int]) -> int | tuple[int, ...]:
    """The size of every axis, or sizes along each."""
    found = tuple(sizes)
    return found[0] if len(set(found)) == 1 else found


def _power_of_two(most: int) -> int:
    """The largest that is not above a number."""
    return 1 << (most.bit_length() - 1)


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
    rates = data.latent_channels()[: len(config.latent_channels)]
    latent_bytes = FLOAT * max(rates) * math.prod(data.latent_grid)
    return config.replace(
        latent_channels=rates,
        autoencoder_training=data.field_training(config.autoencoder_training),
        emulator_training=data.latent_training(config.emulator_training, latent_bytes, config.window),
        pixel_training=data.windows(config.pixel_training),
        evaluation=config.evaluation.replace(members=data.members(config.evaluation.members, latent_bytes)),
        autoencoder=data.autoencoder(*channels),
        cache=config.cache.replace(block=data.block),
        **{
            kind.name: config.emulator(kind).replace(network=latent)
            for kind in KINDS.values()
            if getattr(config, kind.name, None) is not None
        },
        pixel=data.pixel_solver(config.neural_solver.replace(network=network)),
    )
