"""Configurations of samplers, whose formulas `lola.emulation.sampling` gives."""

import dataclasses
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast, get_args

from lola.core.config import Config, Within, added_field, require
from lola.core.errors import ConfigError

if TYPE_CHECKING:
    from azula.denoise import Denoiser
    from azula.sample import Sampler

    from lola.core.seeding import SampleGenerator

SamplerName = Literal[
    "adams_bashforth",
    "adams_bashforth_velocity",
    "exponential_noise",
    "exponential_data",
    "exponential_rosenbrock",
    "euler",
    "heun",
    "ddpm",
    "ddim",
    "ito",
    "predictor_corrector",
]
Spacing = Literal["time", "log_snr", "power", "angle"]


@dataclasses.dataclass(frozen=True)
class Method:
    """An integrator: its options with their defaults, and whether it draws noise."""

    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    stochastic: bool = False


METHODS: dict[SamplerName, Method] = {
    "adams_bashforth": Method({"order": 3}),
    "adams_bashforth_velocity": Method({"order": 3}),
    "exponential_noise": Method({"order": 2}),
    "exponential_data": Method({"order": 2}),
    "exponential_rosenbrock": Method({"order": 2}),
    "euler": Method(),
    "heun": Method(),
    "ddpm": Method(stochastic=True),
    "ddim": Method({"eta": 0.0}, stochastic=True),
    "ito": Method({"eta": 1.0, "temperature": 1.0}, stochastic=True),
    "predictor_corrector": Method({"corrections": 1, "delta": 0.01}, stochastic=True),
}
OPTIONS = ("order", "eta", "temperature", "corrections", "delta")
SolverSteps = Annotated[int, Within("[1, 10000]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig(Config):
    """How the reverse process is integrated. An option that is not given is the method's own.

    Arguments:
        name: The method.
        steps: Evaluations of the network: heun takes two for a step of its own, predictor_corrector
            `1 + corrections`, and so many must divide this number.
        order: The order of a method of several steps; 3 for Adams-Bashforth's, 2 for exponential ones.
        eta: The share of the noise: of ddim from 0 (none, its default) to 1 (ddpm), of ito from 0 to any (1).
        temperature: The divisor of ito's drift; 1.
        corrections: Corrector steps before each predictor step; 1.
        delta: The size of corrector steps, above 0 and below 1; 0.01.
        spacing: In what the steps are evenly spaced.
        exponent: The exponent of the `power` spacing; 7.
    """

    common = ("name", "steps")

    name: SamplerName = "adams_bashforth"
    order: Annotated[int, Within("[1, 8]")] | None = None
    steps: SolverSteps = 16
    eta: Annotated[float, Within("[0, 1e6]")] | None = added_field(None)
    temperature: Annotated[float, Within("(0, 1e6]")] | None = added_field(None)
    corrections: SolverSteps | None = added_field(None)
    delta: Annotated[float, Within("(0, 1)")] | None = added_field(None)
    spacing: Spacing = added_field("time")
    exponent: Annotated[float, Within("(0, 1e3]")] | None = added_field(None)

    def validate(self) -> None:
        require(self.name in get_args(SamplerName), f"no sampler is called {self.name!r}")
        require(self.spacing in get_args(Spacing), f"no step spacing is called {self.spacing!r}")
        for option in OPTIONS:
            takes = option in METHODS[self.name].options
            require(takes or getattr(self, option) is None, f"the sampler {self.name} takes no --{option}")
        require(
            self.spacing == "power" or self.exponent is None,
            f"--exponent is that of the power spacing; {self.spacing} has none",
        )
        ddim = self.name != "ddim" or self.options["eta"] <= 1
        require(ddim, f"--eta of ddim must be from 0 to 1, not {self.eta}")
        require(
            self.steps % self.cost == 0,
            f"{self.name} evaluates the network {self.cost} times for each step of its own; "
            f"--steps must be a multiple of that, not {self.steps}",
        )

    def to_json(self) -> dict[str, Any]:
        """The fingerprinted fields; an option that is not given and one given as it would be are the same."""
        taken = {name: value for name, value in super().to_json().items() if name not in OPTIONS}
        power = {"exponent": self.spacing_exponent} if self.spacing == "power" else {}
        return taken | self.options | power

    @property
    def options(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}
        return METHODS[self.name].options | given

    @property
    def stochastic(self) -> bool:
        """Whether the method may draw noise on its way."""
        return METHODS[self.name].stochastic

    @property
    def cost(self) -> int:
        """Evaluations of the network for one step of the method."""
        return _cost(self.name, self.options.get("corrections", 1))

    @property
    def title(self) -> str:
        """The method, its options and its spacing where they are not its own, in one word."""
        own = METHODS[self.name].options
        changed = [f"{name}{value:g}" for name, value in self.options.items() if value != own[name]]
        spacing = [] if self.spacing == "time" else [self.spaced]
        return "-".join([self.name, *changed, *spacing])

    @property
    def spaced(self) -> str:
        """The spacing and its exponent, if it has one, in one word."""
        return f"power-{self.spacing_exponent:g}" if self.spacing == "power" else self.spacing

    @classmethod
    def titled(cls, title: str, steps: int | None = None) -> Self:
        """The configuration of a title, such as `exponential_data-order3-power-7`; the inverse of `title`.

        Arguments:
            title: The title; options that are the method's own may stand in it.
            steps: Evaluations of the network; None for those of one step of the method.

        Raises:
            ConfigError: No sampler has this title, or it cannot take so many steps.
        """
        name, *words = title.split("-")
        given: dict[str, Any] = {}
        while words:
            word = words.pop(0)
            option = re.fullmatch(f"({'|'.join(OPTIONS)})([0-9.]+)", word)
            if option and option[1] not in given and not given.keys() & {"spacing"}:
                given[option[1]] = _number(option[2], title)
            elif word in get_args(Spacing) and "spacing" not in given:
                given["spacing"] = word
                if word == "power" and words:
                    given["exponent"] = _number(words.pop(0), title)
            else:
                raise ConfigError(f"{title} is no sampler: it has no option {word!r} there")
        for option_name in given.keys() & {"order", "corrections"}:
            require(
                float(given[option_name]).is_integer(),
                f"{title} is no sampler: {option_name} must be an integer",
            )
            given[option_name] = int(given[option_name])
        steps = _cost(name, given.get("corrections", 1)) if steps is None else steps
        return cls(name=cast(SamplerName, name), steps=steps, **given)

    @property
    def spacing_exponent(self) -> float:
        return 7.0 if self.exponent is None else self.exponent

    def build(self, denoiser: "Denoiser", generator: "SampleGenerator | None" = None) -> "Sampler":
        """The sampler of a denoiser: call it with noise at t = 1 to draw.

        Arguments:
            generator: One random stream per row, for stochastic methods; without it they take torch's.
        """
        from lola.emulation.sampling import build_sampler

        return build_sampler(self, denoiser, generator)


def _cost(name: str, corrections: int) -> int:
    return {"heun": 2, "predictor_corrector": 1 + corrections}.get(name, 1)


def _number(text: str, title: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{title} is no sampler: {text!r} is no number") from None
