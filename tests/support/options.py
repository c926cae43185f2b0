"""Every option of every command with impossible and extreme values: what is refused, and what is accepted."""

import dataclasses
import functools
import importlib
import math
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from lola.core.config import Config, deferred_validation
from lola.core.errors import ConfigError
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.schedule_config import ScheduleConfig, TimePriorConfig
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig
from lola.models.unet_config import UNetConfig
from lola.workflows import presets
from lola.workflows.dataset_info import DatasetInfo

INT64_LIMIT = (0, -1, 10**6, 10**18, 10**30)
FLOATS = (0.0, -1.0, 1e300, math.nan, math.inf)


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a command.

    Arguments:
        command: The command and its variant.
        path: Its name on the command line, without dashes before it, in Python's spelling.
        owner: The class of the configuration that holds it.
        hint: The type of its field.
        value: What it has.
    """

    command: str
    path: str
    owner: type[Config]
    hint: Any
    value: Any

    @property
    def field(self) -> str:
        """The field that holds it, by its class: equal for options that are checked and used alike."""
        return f"{self.owner.__name__}.{self.path.rpartition('.')[2]}"

    @property
    def typed(self) -> str:
        """The option as the user types it."""
        return "--" + self.path.replace("_", "-")


@functools.cache
def commands() -> dict[str, Config]:
    """A configuration of every command, and of the kinds of networks, samplers and the like that it takes."""
    found: dict[str, Config] = {}
    load = importlib.import_module
    found["sweep_compression"] = presets.smoke()
    found["train_autoencoder"] = load("train_autoencoder").configure(presets.smoke)()
    found["train_emulator"] = load("train_emulator").configure(presets.smoke)()
    found["study_optimizers"] = presets.study_smoke()
    found["study_samplers"] = presets.samplers_smoke()
    found["soak"] = load("soak").SoakConfig(folder="soak")
    found["elastic"] = load("elastic").DisturbanceConfig()
    found["emulate"] = load("emulate").Emulation(emulator="e", initial="i.hdf5")
    found["cache_latents"] = load("cache_latents").LatentCache(autoencoder="a")
    found["compute_statistics"] = load("compute_statistics").Statistics(name="euler")
    simulations = load("simulate").Simulations
    for system, simulation in presets.TINY_SIMULATIONS.items():
        found[f"simulate {system}"] = simulations(simulation=simulation)
    benchmark = load("benchmark")
    for name in ("training", "data", "emulation"):
        found[f"benchmark {name}"] = getattr(benchmark, name)()
    found["benchmark metrics"] = benchmark.configs.MetricsBenchmark()
    found["benchmark scheduling"] = benchmark.configs.SchedulingBenchmark()
    return found | {f"guide {name}": config for name, config in _kinds()}


def _kinds() -> Iterator[tuple[str, Config]]:
    guide = importlib.import_module("guide").configure(presets.smoke)()
    yield "mmps", guide
    yield (
        "dps",
        guide.replace(
            guidance=GuidanceConfig(name="dps"),
            evaluation=guide.evaluation.replace(sampler=SamplerConfig(name="ddpm")),
        ),
    )
    yield "sensors", guide.replace(observed=ObservationConfig(operator="sensors"))
    yield "unet", guide.replace(diffusion=DiffusionConfig(network=UNetConfig(channels=(4, 8), blocks=(1, 1))))
    codec = TransformerAutoencoderConfig(features=8, heads=2, blocks=1, patch_size=8)
    yield "transformer", guide.replace(autoencoder=codec)
    for prior in ("beta", "kumaraswamy"):
        times = TimePriorConfig(name=prior, a=2.0, b=2.0)
        yield prior, guide.replace(diffusion=guide.diffusion.replace(times=times))
    for name in ("log_linear", "rectified"):
        yield name, guide.replace(diffusion=guide.diffusion.replace(schedule=ScheduleConfig(name=name)))
    for sampler in (
        SamplerConfig(name="ito"),
        SamplerConfig(name="ddim"),
        SamplerConfig(name="exponential_data", spacing="power"),
        SamplerConfig(name="predictor_corrector"),
    ):
        yield sampler.title, guide.replace(evaluation=guide.evaluation.replace(sampler=sampler))


def options(command: str, config: Config, path: str = "") -> Iterator[Option]:
    """Every option that takes numbers or lists."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), path + field.name
        if isinstance(value, Config) and "Fixed" not in str(hints[field.name]):
            yield from options(command, value, name + ".")
        elif isinstance(value, tuple) and value and isinstance(value[0], Config):
            for number, part in enumerate(value):
                yield from options(command, part, f"{name}.{number}.")
            yield Option(command, name, type(config), hints[field.name], value)
        elif list(_hostile(hints[field.name], value)):
            yield Option(command, name, type(config), hints[field.name], value)


def hostile(option: Option) -> Iterator[Any]:
    """The values that an option is tried with."""
    yield from _hostile(option.hint, option.value)


def _hostile(hint: Any, value: Any) -> Iterator[Any]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        yield from _hostile(inner[0], value)
    elif origin in (typing.Union, types.UnionType):
        for each in inner:
            yield from _hostile(each, value)
    elif hint is int:
        yield from INT64_LIMIT
    elif hint is float:
        yield from FLOATS
    elif origin is tuple:
        yield from _lists(inner, value if isinstance(value, tuple) else ())


def _lists(inner: tuple[Any, ...], value: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if inner[-1] is not Ellipsis:
        for place, each in enumerate(inner):
            whole = value or tuple(0 for _ in inner)
            for bad in _hostile(each, whole[place]):
                yield (*whole[:place], bad, *whole[place + 1 :])
        return
    yield ()
    if not value and isinstance(inner[0], type) and issubclass(inner[0], Config):
        return
    some = value or (_some(inner[0]),)
    yield (*some, some[0])
    yield from ((bad, *some[1:]) for bad in _hostile(inner[0], some[0]))


def _some(hint: Any) -> Any:
    """A value of a type, for lists that are empty."""
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is tuple:
        return tuple(_some(each) for each in typing.get_args(hint))
    return {int: 2, float: 0.5, str: "density"}.get(hint, "density")


def changed(config: Config, path: str, value: Any) -> Any:
    """A configuration with another value of an option, not validated."""
    name, _, rest = path.partition(".")
    with deferred_validation():
        if not rest:
            return config.replace(**{name: value})
        part = getattr(config, name)
        if isinstance(part, tuple):
            number, _, rest = rest.partition(".")
            parts = list(part)
            parts[int(number)] = changed(parts[int(number)], rest, value)
            return config.replace(**{name: tuple(parts)})
        return config.replace(**{name: changed(part, rest, value)})


def refusal(config: Config, data: Callable[[Config], DatasetInfo]) -> str:
    """Why a command refuses its configuration before it does anything; nothing if it does not."""
    try:
        config.check_options()
        whole = config.full_sweep() if hasattr(config, "full_sweep") else config
        if hasattr(whole, "fit"):
            whole.fit(data(whole))
    except ConfigError as error:
        return str(error)
    return ""


def made_up(config: Config) -> DatasetInfo:
    """The data that a configuration would have."""
    simulation = getattr(config, "simulation", None) or presets.TINY_SIMULATIONS["euler"]
    return DatasetInfo.of_simulation(simulation)


@functools.cache
def every_option() -> tuple[tuple[Config, Option], ...]:
    """Every option with its command's configuration; those of one field once per kind that it belongs to."""
    found: dict[tuple[type[Config], str, str], tuple[Config, Option]] = {}
    for command, config in commands().items():
        for option in options(command, config):
            kind = command if command in KINDS and option.path.startswith(KINDS[command]) else ""
            found.setdefault((option.owner, option.field, kind), (config, option))
    return tuple(found.values())


def accepting(field: str, value: Any) -> tuple[Config, Option]:
    """The first command that accepts a value of a field, such as `TrainingConfig.seed`, with this value."""
    for config, option in every_option():
        if option.field == field:
            other = changed(config, option.path, value)
            if not refusal(other, made_up):
                return other, option
    raise AssertionError(f"no command accepts {value!r} of {field}")


KINDS = {
    "guide dps": ("guidance", "evaluation.sampler"),
    "guide sensors": ("observed",),
    "guide beta": ("diffusion.times",),
    "guide kumaraswamy": ("diffusion.times",),
    "guide log_linear": ("diffusion.schedule",),
    "guide rectified": ("diffusion.schedule",),
    "guide ito": ("evaluation.sampler",),
    "guide ddim": ("evaluation.sampler",),
    "guide exponential_data-power-7": ("evaluation.sampler",),
    "guide predictor_corrector": ("evaluation.sampler",),
}
"""The options that mean something else in the variants of a command."""
