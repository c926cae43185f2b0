"""Whether options fit the data: what is known of these before anything is simulated, trained or drawn.

Each function raises a `ConfigError` that names options relative to the configuration that it is given.
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lola.core.config import Config, located, option, require
from lola.core.errors import ConfigError
from lola.data.systems import System, get_system
from lola.data.well.splits import WellSplit
from lola.models.autoencoder import AutoencoderConfig
from lola.models.diffusion import DiffusionConfig
from lola.models.neural_solver import NeuralSolverConfig
from lola.models.transformer_autoencoder import TransformerAutoencoderConfig
from lola.simulate.simulation import jobs
from lola.simulate.simulators import Simulation
from lola.training.counting import try_out
from lola.training.loop import TrainingConfig
from lola.training.order import GIGABYTE, Order

FLOAT = 4
PARAMETERS = 1e11  # of the largest model: its weights alone take 400 GB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What the datasets of a system are like.

    Arguments:
        system: The physical system.
        grid: Cells along each grid axis.
        steps: States of each trajectory.
        parameters: The length `P` of a trajectory's parameters.
        trajectories: How many there are in each split.
    """

    system: System
    grid: tuple[int, ...]
    steps: int
    parameters: int
    trajectories: Mapping[str, int]

    @classmethod
    def of_splits(cls, splits: Mapping[str, WellSplit]) -> "Data":
        """Of data that are there."""
        first = splits["test"]
        return cls(
            system=first.system,
            grid=first.grid,
            steps=min(split.steps for split in splits.values()),
            parameters=first.parameter_count,
            trajectories={name: len(split.trajectories) for name, split in splits.items()},
        )

    @classmethod
    def of_simulation(cls, simulation: Simulation) -> "Data":
        """Of data that are yet to be simulated."""
        counts: Counter[str] = Counter()
        for job in jobs(simulation):
            counts[job.split] += job.trajectories
        for split in ("train", "valid", "test"):
            require(
                counts[split] > 0, f"--simulation.{split} must be at least 1: there is a use for each split"
            )
        grid, scalars = simulation.grid, simulation.cases()[0].scalars
        return cls(
            system=get_system(simulation.system),
            grid=grid,
            steps=simulation.outputs + 1,
            parameters=len(scalars) + 2 * len(grid),
            trajectories=counts,
        )


@dataclasses.dataclass
class Windows:
    """How windows of states lie, as far as their order goes (see `lola.training.order.Geometry`).

    Arguments:
        trajectories: Trajectories, variants included.
        steps: States of each.
        span: States from a window's first to its last.
        state_bytes: Bytes of a state in memory.
        whole: Whether trajectories can only be read whole.
        starts: Windows of each trajectory.
    """

    trajectories: int
    steps: int
    span: int
    state_bytes: int
    whole: bool
    starts: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.starts = self.steps - self.span + 1

    def __len__(self) -> int:
        return self.trajectories * self.starts


def fit_training(training: TrainingConfig, windows: Windows, states: int) -> None:
    """Whether the order of samples, and a batch of windows of `states` states, have room in memory."""
    with located("order."):
        Order(windows, training.order, training.seed, training.batch_size)
    batch = training.batch_size * states * windows.state_bytes / GIGABYTE
    require(
        batch <= training.order.memory,
        f"a --batch-size of {training.batch_size} takes {batch:.3g} GB of states; --order.memory has "
        f"room for {training.order.memory:g}",
    )


def fit_autoencoder(model: AutoencoderConfig | TransformerAutoencoderConfig, data: Data) -> tuple[int, ...]:
    """Whether `--autoencoder` takes the data's states; returns the grid of its latent states."""
    with located("autoencoder."):
        model.check_grid(data.grid)
    factors = model.factors(len(data.grid))
    channels = len(data.system.channels)
    sizes = (("channels", channels), ("spatial", len(data.grid)))
    _try_out("--autoencoder", model, sizes, (channels, 1, *data.grid), data.parameters)
    return tuple(size // factor for size, factor in zip(data.grid, factors, strict=True))


def fit_emulator(
    name: str,
    model: DiffusionConfig | NeuralSolverConfig,
    channels: int,
    grid: Sequence[int],
    parameters: int,
    window: int,
) -> None:
    """Whether an emulator, the option `name`, takes windows of `channels` on a grid."""
    with located(f"{name}.network."):
        model.network.check_grid(tuple(grid), window)
    sizes = {"channels": channels, "parameters": parameters, "spatial": len(grid), "window": window}
    _try_out(option(name), model, tuple(sizes.items()), (channels, window, *grid), parameters)


@functools.lru_cache(maxsize=64)
def _try_out(
    title: str, model: Config, sizes: tuple[tuple[str, int], ...], states: tuple[int, ...], parameters: int
) -> None:
    """Run a model once, without memory, on a sample of the shape `states`."""
    kind: Any = model
    told = " x ".join(map(str, states))
    try:
        weights = try_out(functools.partial(kind.build, **dict(sizes)), states, parameters)
    except ConfigError:
        raise
    except (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{title} does not run on samples of {told} (channels, states, grid): {reason}; "
            "choose other sizes"
        ) from error
    require(
        weights <= PARAMETERS,
        f"{title} has {weights:.3g} parameters on samples of {told} (channels, states, grid); "
        f"{PARAMETERS:.3g} is the most",
    )


def latent_windows(
    data: Data, cells: Sequence[int], channels: int, item: int, span: int, variants: int
) -> Windows:
    """The windows of latent states that an emulator is trained on, `item` being a number's bytes."""
    return Windows(
        data.trajectories["train"] * variants, data.steps, span, item * channels * math.prod(cells), True
    )


def field_windows(data: Data, span: int) -> Windows:
    """The windows of fields that a model is trained on."""
    state = FLOAT * len(data.system.channels) * math.prod(data.grid)
    return Windows(data.trajectories["train"], data.steps, span, state, False)
