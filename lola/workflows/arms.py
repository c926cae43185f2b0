"""The emulators of a sweep: those of the chosen kinds and arms, at every rate, with every training seed."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lola.core.config import Config, DistinctOrNone, Size, option_name, require, runtime_field
from lola.models.emulator_config import EmulatorConfig
from lola.models.kinds import KINDS, EmulatorKind, arm_kind, require_kind
from lola.training.config import TrainingConfig

if TYPE_CHECKING:
    from lola.workflows.sweep import SweepConfig

TAKEN = {
    *("autoencoder", "autoencoded_persistence", "climatology", "persistence", "simulator"),
    *("guided", "latents", "statistics", "truth"),
}
"""What tables, charts and folders name otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmulatorArmConfig(Config):
    """An emulator that a sweep compares in addition to those of its kinds, such as one in another recipe.

    Arguments:
        name: Its name in tables, folders and MLflow: letters, digits and `_`.
        title: Its name for people; default: its kind's title with its name.
        model: The emulator; it may also start from the weights of another arm of its space, by name.
        training: How it is trained; default: as the sweep's other emulators of its space.
        pixel: Whether it is an emulator of the fields, not of latent states.
        latent_channels: Numbers of latent channels, of those of the sweep, at which it is trained; default:
            all.
    """

    name: str
    title: str = runtime_field("")
    model: EmulatorConfig
    training: TrainingConfig | None = None
    pixel: bool = False
    latent_channels: DistinctOrNone[Size] = ()

    def validate(self) -> None:
        require(
            bool(re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII)),
            f"--name must consist of letters, digits and _, and start with a letter, not {self.name!r}",
        )
        name = self.name.lower()
        require(
            name not in TAKEN and name not in KINDS and not name.endswith("_ema"),
            f"--name {self.name} stands for something else in tables; choose another one",
        )
        require(
            not (self.pixel and self.latent_channels),
            f"--latent-channels: {self.name} is of pixel space, which has none",
        )
        require_kind(self.model)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What a sweep compares: a kind's emulator, or an arm, at several rates.

    Arguments:
        kind: Its kind; of an arm, with the arm's name, title and colours.
        channels: Its numbers of latent channels; None is pixel space.
        option, training_option: Where the command line has its model and its training.
        source: The one whose weights it starts from, at its rate and with its seed, if it is of the sweep.
    """

    kind: EmulatorKind
    model: EmulatorConfig
    training: TrainingConfig
    channels: tuple[int | None, ...]
    option: str
    training_option: str
    source: "Candidate | None" = None

    @property
    def name(self) -> str:
        return self.kind.name

    @property
    def pixel(self) -> bool:
        return None in self.channels

    @property
    def described(self) -> dict[str, Any]:
        """What the manifests of its stages say of an arm, whose name its model does not tell."""
        return {} if self.name in KINDS else {"arm": {"name": self.name, "title": self.kind.title}}

    @property
    def most_channels(self) -> int:
        """The most of its latent channels; 0 in pixel space."""
        return max(n or 0 for n in self.channels)


@dataclasses.dataclass(frozen=True)
class PlannedEmulator:
    """An emulator that a sweep trains: a candidate at one rate, with one seed.

    Arguments:
        latent_channels: None is pixel space.
        training: How it is trained, with its seed.
        suffix: What names have after its rate: nothing, or a seed that is not the training's own.
    """

    candidate: Candidate
    latent_channels: int | None
    training: TrainingConfig
    suffix: str = ""

    @property
    def name(self) -> str:
        """The start of its stages' names, and the `model` column of its scores."""
        return self.candidate.name

    @property
    def kind(self) -> EmulatorKind:
        return self.candidate.kind

    @property
    def model(self) -> EmulatorConfig:
        return self.candidate.model

    @property
    def seed(self) -> int:
        return self.training.seed


def find_candidates(config: "SweepConfig") -> tuple[Candidate, ...]:
    """What a sweep compares, pixel space first, and each after the one whose weights it starts from.

    Raises:
        ConfigError: Names are taken or rates unknown, two are the same, or one cannot start from another.
    """
    found = [*_pixel(config), *_latent(config), *_arms(config)]
    _check_distinct(found, config)
    chains = [(one, [other.name for other in _chain(one, found, config)]) for one in found]
    chains.sort(key=lambda pair: (not pair[0].pixel, len(pair[1])))
    ready: dict[tuple[str, bool], Candidate] = {}
    for one, names in chains:
        source = ready[names[0], one.pixel] if names else None
        ready[one.name, one.pixel] = dataclasses.replace(one, source=source)
    return tuple(ready.values())


def plan_emulators(config: "SweepConfig") -> Iterator[PlannedEmulator]:
    """The emulators of a sweep; further seeds come last, so that all rates are seen early."""
    candidates = find_candidates(config)
    for number, seed in enumerate(config.seeds or (None,)):
        for n in (None, *config.latent_channels):
            for one in candidates:
                if n in one.channels and (number == 0 or not config.seeds_at or n in config.seeds_at):
                    yield _seeded(one, n, seed)


def _seeded(one: Candidate, n: int | None, seed: int | None) -> PlannedEmulator:
    if seed is None or seed == one.training.seed:
        return PlannedEmulator(one, n, one.training)
    return PlannedEmulator(one, n, one.training.replace(seed=seed), f"-seed{seed}")


def _pixel(config: "SweepConfig") -> Iterator[Candidate]:
    if config.pixel is not None:
        kind = require_kind(config.pixel)
        yield Candidate(kind, config.pixel, config.pixel_training, (None,), "pixel", "pixel-training")


def _latent(config: "SweepConfig") -> Iterator[Candidate]:
    for kind in KINDS.values():
        if kind.name in config.emulators:
            model, training = config.emulator(kind), config.emulator_training
            yield Candidate(kind, model, training, config.latent_channels, kind.option, "emulator-training")


def _arms(config: "SweepConfig") -> Iterator[Candidate]:
    for number, arm in enumerate(config.arms):
        unknown = [str(n) for n in arm.latent_channels if n not in config.latent_channels]
        require(
            not unknown,
            f"--arms.{number}.latent-channels {' '.join(unknown)} of {arm.name} are not among "
            f"--latent-channels {' '.join(map(str, config.latent_channels))}",
        )
        shared, option = (
            (config.pixel_training, "pixel-training")
            if arm.pixel
            else (config.emulator_training, "emulator-training")
        )
        yield Candidate(
            arm_kind(require_kind(arm.model), arm.name, arm.title, number),
            arm.model,
            arm.training or shared,
            (None,) if arm.pixel else arm.latent_channels or config.latent_channels,
            f"arms.{number}.model",
            f"arms.{number}.training" if arm.training else option,
        )


def _chain(one: Candidate, found: Sequence[Candidate], config: "SweepConfig") -> Iterator[Candidate]:
    """The candidates whose weights one starts from, the nearest first."""
    passed, last = [one], _find_source(one, found, config)
    while last is not None:
        option = f"{option_name(passed[-1].option)}.warm-start {last.name}"
        require(last not in passed, f"{option}: an emulator cannot start from itself")
        lacking = [str(n) for n in passed[-1].channels if n not in last.channels]
        require(
            not lacking, f"{option}: {last.name} is not trained at {' '.join(lacking)} latent channels, and "
            f"{passed[-1].name} is",
        )  # fmt: skip
        yield last
        passed.append(last)
        last = _find_source(last, found, config)


def _find_source(one: Candidate, found: Sequence[Candidate], config: "SweepConfig") -> Candidate | None:
    name, option = one.model.warm_start, f"{option_name(one.option)}.warm-start"
    if name is None:
        return None
    require(
        one.option != "pixel" or name not in KINDS,
        f"{option} must name a finished stage or an arm: pixel space has one emulator of a kind",
    )
    for other in found:
        if other.name == name and other.pixel == one.pixel:
            return other
    require(not one.pixel or name not in KINDS, f"{option} {name}: --pixel is no {name}")
    require(
        name not in KINDS,
        f"{option} {name} needs {name} among --emulators {' '.join(config.emulators)}; add it, or start from "
        f"new weights with {option} None",
    )
    require(
        all(other.name != name for other in found),
        f"{option} {name}: {name} is of {'latent' if one.pixel else 'pixel'} space, and weights are of one",
    )
    return None


def _check_distinct(found: Sequence[Candidate], config: "SweepConfig") -> None:
    """Refuse two arms of one name, and what would be trained twice under two names."""
    names = [arm.name.lower() for arm in config.arms]
    twice = [arm.name for arm in config.arms if names.count(arm.name.lower()) > 1]
    require(not twice, f"--arms: {' and '.join(twice)} need names that differ in more than case")
    titles = [*(kind.title for kind in KINDS.values()), *(one.kind.title for one in found if one.described)]
    alike = [title for title in titles if titles.count(title) > 1]
    require(not alike, f"--arms: the title {alike[0] if alike else ''} is of two; choose another one")
    seed = {"seed": 0} if config.seeds else {}
    recipes: dict[tuple, str] = {}
    for one in found:
        minutes = one.training.minutes
        training = (
            one.training.to_json() | seed | ({} if minutes is None else {"steps": f"{minutes} minutes"})
        )
        for n in one.channels:
            recipe = n, type(one.model).__name__, repr(one.model.to_json()), repr(training)
            other = recipes.setdefault(recipe, one.name)
            require(
                other == one.name,
                f"--arms: {one.name} is the same as {other}; change its model or training, or leave it out",
            )
