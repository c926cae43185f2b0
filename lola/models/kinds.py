"""The kinds of emulators: one table, which plans, tables, charts and reports iterate over.

A kind is a configuration whose `build` gives an `EmulatorModel`, and an entry of `KINDS`. To add one, write
both here in `lola.models`; a sweep with `--emulators ... NAME` then trains, evaluates and reports it. Its
options are on the command line if `SweepConfig` has a field of its name.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lola.core.config import require
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.emulator_config import EmulatorConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.shortcut_config import ShortcutConfig

if TYPE_CHECKING:
    from torch import Tensor

    from lola.core.seeding import SampleGenerator
    from lola.data.state import Batch
    from lola.models.binding import BoundNetwork


class EmulatorModel(Protocol):
    """What training and rollouts see of an emulator's model, an `nn.Module` of windows of `window` states.

    A kind with `sampler_steps` has, in addition, the `predict`, `draw`, `to_states`, `denoiser` and
    `flow_map` of
    `lola.models.diffusion.Diffusion`.
    """

    window: int

    def loss(self, batch: "Batch", generator: "SampleGenerator") -> "tuple[Tensor, dict[str, Tensor]]":
        """The mean loss of a batch, and named diagnostics."""

    def bind(
        self, mask: "Tensor", parameters: "Tensor", compiled: bool = False, graphs: bool = False
    ) -> "BoundNetwork | None":
        """The network with mask `(B, 1, L, *grid)` and parameters `(B, P)` bound, if it can be."""

    def predict(
        self,
        known: "Tensor",
        mask: "Tensor",
        parameters: "Tensor",
        generator: "SampleGenerator",
        bound: "BoundNetwork | None" = None,
    ) -> "Tensor":
        """Complete windows `(B, C, L, *grid)`; random numbers are of `generator`, one stream per window."""


@dataclasses.dataclass(frozen=True)
class Colour:
    """A colour of charts on white and on black, such as `#0072b2`."""

    light: str
    dark: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmulatorKind:
    """A kind of emulator.

    Arguments:
        name: Its name in tables, folders and options.
        title: Its name for people.
        config: The class of its configurations.
        stochastic: Whether members of an ensemble differ.
        sampler_steps: Whether a window takes several evaluations of the network, chosen by a sampler.
        sampler: The sampler that it is trained for, if any; else it is evaluated with the one configured.
        colour, pixel_colour: Its colours in charts, in latent and in pixel space.
    """

    name: str
    title: str
    config: type[EmulatorConfig]
    stochastic: bool
    sampler_steps: bool
    colour: Colour
    pixel_colour: Colour
    sampler: Literal["euler"] | None = None

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return self.name.replace("_", "-")


KINDS: dict[str, EmulatorKind] = {
    kind.name: kind
    for kind in (
        EmulatorKind(
            name="neural_solver",
            title="Neural solver",
            config=NeuralSolverConfig,
            stochastic=False,
            sampler_steps=False,
            colour=Colour("#c95400", "#ff8b45"),
            pixel_colour=Colour("#b8578f", "#e793c4"),
        ),
        EmulatorKind(
            name="diffusion",
            title="Diffusion",
            config=DiffusionConfig,
            stochastic=True,
            sampler_steps=True,
            colour=Colour("#0072b2", "#4aa8e8"),
            pixel_colour=Colour("#2f9bd6", "#8fd0f5"),
        ),
        EmulatorKind(
            name="crps_ensemble",
            title="CRPS ensemble",
            config=CRPSEnsembleConfig,
            stochastic=True,
            sampler_steps=False,
            colour=Colour("#b0123b", "#ff6f91"),
            pixel_colour=Colour("#d98aa0", "#ffc2d0"),
        ),
        EmulatorKind(
            name="shortcut",
            title="Few-step diffusion",
            config=ShortcutConfig,
            stochastic=True,
            sampler_steps=True,
            sampler="euler",
            colour=Colour("#008f67", "#3fd1a4"),
            pixel_colour=Colour("#56b68f", "#9ee3c8"),
        ),
    )
}
"""All kinds by name, in the order of tables."""

ARM_COLOURS = (
    Colour("#00798c", "#45c4d8"),
    Colour("#6a4c93", "#b79ae0"),
    Colour("#7a6a00", "#d3bf3a"),
    Colour("#3f7d20", "#8fce6a"),
    Colour("#9c4f2e", "#e0a182"),
    Colour("#2f4b7c", "#8ea6dd"),
    Colour("#b0006d", "#f06bbd"),
    Colour("#5c5c3d", "#b9b98a"),
)
"""The colours of arms, in their order; more arms share them."""

if TYPE_CHECKING:
    KindOption = str
else:
    KindOption = Literal[tuple(kind.option for kind in KINDS.values())]


def kind_of(config: object) -> EmulatorKind | None:
    """The kind of a configuration or of a model's `config`; None if it is of no kind."""
    return next((kind for kind in KINDS.values() if type(config) is kind.config), None)


def require_kind(config: EmulatorConfig) -> EmulatorKind:
    """The kind of a configuration.

    Raises:
        ConfigError: There is no such kind.
    """
    kind = kind_of(config)
    require(
        kind is not None, f"{type(config).__name__} is no kind of emulator; choose from {', '.join(KINDS)}"
    )
    assert kind is not None
    return kind


def arm_kind(kind: EmulatorKind, name: str, title: str, number: int) -> EmulatorKind:
    """What tables and charts show of an arm of a sweep, an emulator of a kind under a name of its own.

    Arguments:
        title: Its name for people; if empty, the kind's with its name.
        number: Its place among the arms, which decides its colour.
    """
    colour = ARM_COLOURS[number % len(ARM_COLOURS)]
    title = title or f"{kind.title} ({name})"
    return dataclasses.replace(kind, name=name, title=title, colour=colour, pixel_colour=colour)


_arms: contextvars.ContextVar[tuple[EmulatorKind, ...]] = contextvars.ContextVar("_arms", default=())


@contextlib.contextmanager
def shown_with(arms: Iterable[EmulatorKind]) -> Iterator[None]:
    """Let tables and charts know the names in the `model` column that are a sweep's arms (`arm_kind`)."""
    token = _arms.set(tuple(arms))
    try:
        yield
    finally:
        _arms.reset(token)


def shown_kinds() -> dict[str, EmulatorKind]:
    """What the `model` column may name of emulators, in the order of tables: all kinds, then arms."""
    return KINDS | {arm.name: arm for arm in _arms.get()}


def kind_titles() -> dict[str, str]:
    """The title of every emulator by name (see `shown_kinds`), averaged weights as further entries."""
    titles: dict[str, str] = {}
    for kind in shown_kinds().values():
        titles |= {kind.name: kind.title, f"{kind.name}_ema": f"{kind.title} (EMA)"}
    return titles


def kind_colours() -> dict[str, Colour]:
    """The colours of charts by name: those of a kind or arm, and `<name>-pixel`."""
    found: dict[str, Colour] = {}
    for kind in shown_kinds().values():
        found |= {kind.name: kind.colour, f"{kind.name}-pixel": kind.pixel_colour}
    return found


def sampled_kind(described: dict[str, Any]) -> EmulatorKind | None:
    """The kind of a manifest's model if it has sampler steps."""
    kinds = {kind.config.__name__: kind for kind in KINDS.values() if kind.sampler_steps}
    return kinds.get(described["type"])
