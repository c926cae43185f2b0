r"""Integrators of the reverse process (Eq. 2), by azula.

With `rho = sigma / alpha`, `x(x_t) = E[x | x_t]` and `z(x_t) = (x_t - alpha x(x_t)) / sigma`, the probability
flow is `d(x_t / alpha) = z(x_t) d rho`. Deterministic methods integrate it; those of several steps take

    adams_bashforth            z as a polynomial in rho through the last `order` steps (the published method)
    adams_bashforth_velocity   z - x as a polynomial in rho / (1 + rho)
    exponential_noise          z as a polynomial in log rho (DPM-Solver, of several steps)
    exponential_data           x as a polynomial in log rho (DPM-Solver++, of several steps)
    exponential_rosenbrock     what is left of z without its part linear in x_t (DPM-Solver-v3's idea)

`euler` and `heun` are the classic methods in rho. Stochastic methods add noise: `ddpm`; `ddim`, a share `eta`
of that; `ito`, Euler's method for the stochastic equation; `predictor_corrector`, Langevin steps of size
`delta` before each step of Euler's. Methods stop at t = 0, where the schedule leaves a little noise.

Between t = 1 and 0 the `n` steps are spaced evenly, as `u = 1 ... 0`, in

    time       t  (published)
    log_snr    log rho
    power      rho^(1 / exponent), larger exponents spending more steps on little noise
    angle      arctan rho
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, cast, get_args

import torch
from azula.denoise import Denoiser
from azula.noise import Schedule
from azula.sample import (
    DDIMSampler,
    DDPMSampler,
    EulerSampler,
    HeunSampler,
    ItoSampler,
    PCSampler,
    REABSampler,
    Sampler,
    vABSampler,
    xEABSampler,
    zABSampler,
    zEABSampler,
)
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lola.core.config import Config, Within, added, require
from lola.core.errors import ConfigError
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


class RosenbrockSampler(REABSampler):
    """azula's method with its integral scaled by the noise that a step ends at.

    azula 0.11 takes `sqrt(alpha_s^2 + sigma_t^2)` for `sqrt(alpha_s^2 + sigma_s^2)`, which makes an error of
    the first order in the step.
    """

    @torch.no_grad()
    def __call__(self, x: Tensor, **kwargs: Any) -> Tensor:
        times = self.timesteps.to(x.device)
        alpha, sigma = self.denoiser.schedule(times)
        norm = torch.hypot(alpha, sigma)
        past: list[Tensor] = []
        for i, t in enumerate(times[:-1]):
            mean = self.denoiser(x, t, **kwargs).mean
            rest = alpha[i] * norm[i] / sigma[i] * (x / norm[i] ** 2 - mean / alpha[i])
            past = [*past[1 - self.order :], rest] if self.order > 1 else [rest]
            weights = self._exponential_adams_bashforth(torch.log(sigma / alpha), i=i, n=self.order)
            integral = sum(weight * each for weight, each in zip(weights, past, strict=True))
            x = norm[i + 1] / norm[i] * x + norm[i + 1] * integral
        return x


@dataclasses.dataclass(frozen=True)
class _Method:
    """An integrator: azula's class, its options with their defaults, and whether it draws noise."""

    sampler: type[Sampler]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    stochastic: bool = False


METHODS: dict[SamplerName, _Method] = {
    "adams_bashforth": _Method(zABSampler, {"order": 3}),
    "adams_bashforth_velocity": _Method(vABSampler, {"order": 3}),
    "exponential_noise": _Method(zEABSampler, {"order": 2}),
    "exponential_data": _Method(xEABSampler, {"order": 2}),
    "exponential_rosenbrock": _Method(RosenbrockSampler, {"order": 2}),
    "euler": _Method(EulerSampler),
    "heun": _Method(HeunSampler),
    "ddpm": _Method(DDPMSampler, stochastic=True),
    "ddim": _Method(DDIMSampler, {"eta": 0.0}, stochastic=True),
    "ito": _Method(ItoSampler, {"eta": 1.0, "temperature": 1.0}, stochastic=True),
    "predictor_corrector": _Method(PCSampler, {"corrections": 1, "delta": 0.01}, stochastic=True),
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
        temperature: What ito divides its drift by; 1.
        corrections: Corrector steps before each predictor step; 1.
        delta: The size of corrector steps, above 0 and below 1; 0.01.
        spacing: In what the steps are evenly spaced.
        exponent: The exponent of the `power` spacing; 7.
    """

    name: SamplerName = "adams_bashforth"
    order: Annotated[int, Within("[1, 8]")] | None = None
    steps: SolverSteps = 16
    eta: Annotated[float, Within("[0, 1e6]")] | None = added(None)
    temperature: Annotated[float, Within("(0, 1e6]")] | None = added(None)
    corrections: SolverSteps | None = added(None)
    delta: Annotated[float, Within("(0, 1)")] | None = added(None)
    spacing: Spacing = added("time")
    exponent: Annotated[float, Within("(0, 1e3]")] | None = added(None)

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

    def what(self) -> dict[str, Any]:
        """The fingerprinted fields; an option that is not given and one given as it would be are the same."""
        taken = {name: value for name, value in super().what().items() if name not in OPTIONS}
        power = {"exponent": self._exponent} if self.spacing == "power" else {}
        return taken | self.options | power

    @property
    def options(self) -> dict[str, Any]:
        """The method's options, by name."""
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
        return f"power-{self._exponent:g}" if self.spacing == "power" else self.spacing

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
        for whole in given.keys() & {"order", "corrections"}:
            require(float(given[whole]).is_integer(), f"{title} is no sampler: {whole} must be whole")
            given[whole] = int(given[whole])
        steps = _cost(name, given.get("corrections", 1)) if steps is None else steps
        return cls(name=cast(SamplerName, name), steps=steps, **given)

    @property
    def _exponent(self) -> float:
        return 7.0 if self.exponent is None else self.exponent

    def build(self, denoiser: Denoiser, generator: SampleGenerator | None = None) -> Sampler:
        """The sampler of a denoiser: call it with noise at t = 1 to draw.

        Arguments:
            denoiser: The denoiser.
            generator: One random stream per row, for stochastic methods; without it they take torch's.
        """
        method = METHODS[self.name]
        arranged = self.arrange(method.sampler, denoiser, generator if method.stochastic else None)
        return arranged(denoiser, **self.options)

    def arrange(
        self, method: type[Sampler], denoiser: Denoiser, generator: SampleGenerator | None
    ) -> Callable[..., Sampler]:
        """A method of azula's at the times of this configuration, its noise drawn from a generator."""
        count = self.steps // self.cost
        if self.spacing == "time" and generator is None:
            return lambda *inputs, **options: method(*inputs, steps=count, silent=True, **options)
        times = (
            None if self.spacing == "time" else _times(denoiser.schedule, self.spacing, count, self._exponent)
        )

        class Arranged(method):  # type: ignore[valid-type, misc]
            @property
            def timesteps(self) -> Tensor:
                return super().timesteps if times is None else times.to(self.dtype or torch.float32)

            def __call__(self, x: Tensor, **kwargs: Any) -> Tensor:
                if generator is None:
                    return super().__call__(x, **kwargs)
                with KeyedNoise(generator):
                    return super().__call__(x, **kwargs)

        return functools.partial(Arranged, steps=count, silent=True)


class KeyedNoise(TorchFunctionMode):
    """Within it `torch.randn_like` draws each row from its own stream, so that no row depends on others."""

    def __init__(self, generator: SampleGenerator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.randn_like:
            return self.generator.normal(*args[0].shape[1:]).to(args[0])
        return func(*args, **(kwargs or {}))


@functools.lru_cache(maxsize=64)
def _times(schedule: Schedule, spacing: Spacing, count: int, exponent: float) -> Tensor:
    """`count + 1` times from 1 to 0 that are evenly spaced in a function of rho, float64."""
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    first, last = _spaced(_log_rho(schedule, ends), spacing, exponent)
    wanted = first + (last - first) * torch.linspace(0, 1, count + 1, dtype=torch.float64)
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(60):
        middle = (low + high) / 2
        above = (_spaced(_log_rho(schedule, middle), spacing, exponent) - wanted) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    times = (low + high) / 2
    times[0], times[-1] = ends
    return times


def _cost(name: str, corrections: int) -> int:
    """Evaluations of the network for one step of a method."""
    return {"heun": 2, "predictor_corrector": 1 + corrections}.get(name, 1)


def _number(text: str, title: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{title} is no sampler: {text!r} is no number") from None


def _log_rho(schedule: Schedule, t: Tensor) -> Tensor:
    alpha, sigma = schedule(t)
    return torch.log(sigma) - torch.log(alpha)


def _spaced(log_rho: Tensor, spacing: Spacing, exponent: float) -> Tensor:
    """The quantity in which steps are even; it rises with the noise."""
    match spacing:
        case "power":
            return torch.exp(log_rho / exponent)
        case "angle":
            return torch.atan(torch.exp(log_rho))
        case _:
            return log_rho
