"""Published denoisers and neural solvers as ours: their schedules, sizes and embeddings."""

import re
from types import ModuleType
from typing import TypeVar

from torch import Tensor, nn

from lola.models.diffusion import Diffusion
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver import NeuralSolver
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.schedule_config import ScheduleConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig
from lola.nn.embedding import SineEncoding
from lola.reference import transformers, unets
from lola.reference.dataset import read_trajectory
from lola.reference.options import IGNORED, read_choice, read_size
from lola.reference.published_run import PublishedRun, load_run_weights

ARCHITECTURES = {"vit": transformers, "dit": transformers, None: transformers, "unet": unets}
M = TypeVar("M", bound=nn.Module)
SCHEDULES: dict[str, set[str]] = {"log_logit": {"scale", "shift"}, "log_linear": set()}


def build_emulator(run: PublishedRun) -> Diffusion | NeuralSolver:
    """The network of an emulator's run, in evaluation mode.

    Raises:
        DataError: Its configuration describes an unsupported network, or its weights belong to another.
    """
    return build_denoiser(run) if run.kind == "denoiser" else build_neural_solver(run)


def build_denoiser(run: PublishedRun) -> Diffusion:
    """The diffusion model of a run; errors as in `build_emulator`."""
    read_choice(run, "denoiser", "masked", True)
    network = _network(run)
    with run.translate_config_errors("denoiser"):
        config = DiffusionConfig(network=network, schedule=_schedule(run))
        model = config.build(**emulator_sizes(run))
    frequencies = SineEncoding(network.modulation).frequencies
    return _load_weights(run, model, network, {"backbone.time_embedding.0.freqs": frequencies})


def build_neural_solver(run: PublishedRun) -> NeuralSolver:
    """The neural solver of a run; errors as in `build_emulator`."""
    network = _network(run)
    with run.translate_config_errors("surrogate"):
        model = NeuralSolverConfig(network=network).build(**emulator_sizes(run))
    return _load_weights(run, model, network, {})


def emulator_sizes(run: PublishedRun) -> dict[str, int]:
    """The sizes that the data decided, by the names of `build`: from the configuration, else the weights."""
    architecture, network = _architecture(run), _network(run)
    axes = architecture.axes(run, _prefix(run))
    outputs = architecture.outputs(run, _prefix(run), network)
    label = run.state.get(f"{_embeddings(run)}label_embedding.0.weight")
    return {
        "channels": read_size(run, run.kind, "channels", outputs),
        "parameters": read_size(run, run.kind, "label_features", 0 if label is None else label.shape[-1]),
        "spatial": axes - 1,
        "window": read_trajectory(run).length,
    }


def _schedule(run: PublishedRun) -> ScheduleConfig:
    schedule = run.section("denoiser").get("schedule")
    if not isinstance(schedule, dict):
        raise run.error(f"denoiser has schedule: {schedule}; it must be a section")
    name = schedule.get("name")
    if (
        not isinstance(name, str) or name not in SCHEDULES
    ):  # of other schedules we do not know the published form
        raise run.error(f"schedule has name: {name}; we know {' and '.join(SCHEDULES)} alone")
    run.refuse_unknown("schedule", schedule, {"name", "sigma_min", "sigma_max", *SCHEDULES[name]})
    return ScheduleConfig.from_json(schedule)


def _architecture(run: PublishedRun) -> ModuleType:
    return ARCHITECTURES[read_choice(run, run.kind, "arch", *ARCHITECTURES)]


def _network(run: PublishedRun) -> TransformerConfig | UNetConfig:
    ignored = IGNORED | ({"masked", "schedule", "precondition"} if run.kind == "denoiser" else set())
    architecture = _architecture(run)
    axes = architecture.axes(run, _prefix(run))
    if not 2 <= axes <= 4:
        raise run.error(f"{run.kind} has spatial: {axes}; we know time and 1 to 3 grid axes")
    return architecture.read_config(run, axes, ignored)


def _embeddings(run: PublishedRun) -> str:
    """What precedes the names of a network's embeddings, of time and label."""
    return "backbone." if run.kind == "denoiser" else ""


def _prefix(run: PublishedRun) -> str:
    """What precedes the names of a network's own parameters."""
    return f"{_embeddings(run)}backbone."


def _load_weights(
    run: PublishedRun, model: M, network: TransformerConfig | UNetConfig, constants: dict[str, Tensor]
) -> M:
    architecture, sizes = _architecture(run), emulator_sizes(run)

    def published(name: str) -> list[str]:
        embedding = re.search(r"embed_(noise|parameters)\.(.*)$", name)
        if embedding:
            kind = {"noise": "time_embedding", "parameters": "label_embedding"}[embedding[1]]
            return [f"{_embeddings(run)}{kind}.{embedding[2]}"]
        inner = re.sub(r"^(denoiser\.backbone\.)?network\.", "", name)
        return [f"{_prefix(run)}{theirs}" for theirs in architecture.published(inner, network)]

    inner = architecture.constants(network)
    constants |= {f"{_prefix(run)}{name}": value for name, value in inner.items()}
    return load_run_weights(run, model, published, constants, architecture.reorder(network, sizes))
