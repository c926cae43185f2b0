"""Published denoisers and neural solvers as ours: their options, and the names of their parameters."""

import math
import re
from typing import Any

from torch import Tensor

from lola.diffusion import Diffusion, DiffusionConfig
from lola.neural_solver import NeuralSolver, NeuralSolverConfig
from lola.nn.embedding import SineEncoding
from lola.reference.dataset import read_trajectory
from lola.reference.options import expect, size, translate
from lola.reference.run import Run, fill
from lola.schedule import ScheduleConfig
from lola.transformer import TransformerConfig

OPTIONS = {
    "emb_features": "modulation",
    "hid_channels": "features",
    "hid_blocks": "blocks",
    "ffn_factor": "ffn_factor",
    "attention_heads": "heads",
    "qk_norm": "qk_norm",
    "rope": "rope",
    "patch_size": "patch_size",
    "dropout": "dropout",
}
DEFAULTS: dict[str, Any] = {
    "emb_features": 256,
    "hid_channels": 1024,
    "hid_blocks": 3,
    "attention_heads": 1,
    "patch_size": 1,
    "dropout": None,
}
# Sizes, training aids and what is read elsewhere
IGNORED = {
    *("name", "arch", "loss", "checkpointing", "window_size", "unpatch_size"),
    *("channels", "label_features", "spatial"),
}
DENOISER = {"masked", "schedule", "precondition"}
SCHEDULES = {"log_logit": {"scale", "shift"}, "log_linear": set()}

NAMES = (
    (r"^(denoiser\.)?(backbone\.)?transformer\.", ""),
    (r"^project_in\.", "in_proj."),
    (r"^project_out\.", "out_proj."),
    (r"^position\.", "positional_embedding.2."),
    (r"\.attention\.qkv\.", ".msa.qkv_proj."),
    (r"\.attention\.out\.", ".msa.y_proj."),
    (r"\.feedforward\.", ".ffn."),
    (r"\.modulation\.", ".ada_zero."),
    (r"\.abcd$", ".ada_zero"),
)


def build_emulator(run: Run) -> Diffusion | NeuralSolver:
    """The network of an emulator's run, in evaluation mode.

    Raises:
        DataError: Its configuration tells of a network that we have not, or its weights are of another.
    """
    return build_denoiser(run) if run.kind == "denoiser" else build_neural_solver(run)


def build_denoiser(run: Run) -> Diffusion:
    """The diffusion model of a run; errors as in `build_emulator`."""
    expect(run, "denoiser", "masked", True)
    transformer = _transformer(run)
    with run.honouring("denoiser"):
        config = DiffusionConfig(transformer=transformer, schedule=_schedule(run))
        model = config.build(**emulator_sizes(run))
    constants = _constants(run, transformer)
    constants["backbone.time_embedding.0.freqs"] = SineEncoding(transformer.modulation).frequencies
    return fill(run, model, lambda name: [_published(name, run)], constants)


def build_neural_solver(run: Run) -> NeuralSolver:
    """The neural solver of a run; errors as in `build_emulator`."""
    transformer = _transformer(run)
    with run.honouring("surrogate"):
        model = NeuralSolverConfig(transformer=transformer).build(**emulator_sizes(run))
    return fill(run, model, lambda name: [_published(name, run)], _constants(run, transformer))


def emulator_sizes(run: Run) -> dict[str, int]:
    """The sizes that the data decided, by the names of `build`: from the configuration, else the weights."""
    transformer, axes = _transformer(run), _axes(run)
    outputs = len(run.tensor(f"{_prefix(run)}backbone.out_proj.weight"))
    label = run.state.get(f"{_prefix(run)}label_embedding.0.weight")
    return {
        "channels": size(run, run.kind, "channels", outputs // math.prod(transformer.patches(axes - 1))),
        "parameters": size(run, run.kind, "label_features", 0 if label is None else label.shape[-1]),
        "spatial": axes - 1,
        "window": read_trajectory(run).length,
    }


def _schedule(run: Run) -> ScheduleConfig:
    schedule = run.section("denoiser").get("schedule")
    if not isinstance(schedule, dict):
        raise run.fault(f"denoiser has schedule: {schedule}; it must be a section")
    name = schedule.get("name")
    if name not in SCHEDULES:  # of other schedules we do not know the published form
        raise run.fault(f"schedule has name: {name}; we know {' and '.join(SCHEDULES)} alone")
    run.refuse_others("schedule", schedule, {"name", "sigma_min", "sigma_max", *SCHEDULES[name]})
    return ScheduleConfig.from_json(schedule)


def _transformer(run: Run) -> TransformerConfig:
    name = run.kind
    expect(run, name, "arch", "vit", "dit", None)
    expect(run, name, "window_size", None)
    expect(run, name, "unpatch_size", None)
    options = translate(run, name, OPTIONS, DEFAULTS, IGNORED | (DENOISER if name == "denoiser" else set()))
    axes = _axes(run)
    if isinstance(options["patch_size"], int):
        options["patch_size"] = (options["patch_size"],) * axes  # one number stands for time too
    with run.honouring(name):
        config = TransformerConfig.from_json(options)
        config.patches(axes - 1)
    return config


def _axes(run: Run) -> int:
    """Axes of a window: time and grid."""
    position = run.tensor(f"{_prefix(run)}backbone.positional_embedding.2.weight")
    axes = size(run, run.kind, "spatial", position.shape[-1] // max(1, len(position)))
    if not 2 <= axes <= 4:
        raise run.fault(f"{run.kind} has spatial: {axes}; we know time and 1 to 3 grid axes")
    return axes


def _prefix(run: Run) -> str:
    """What precedes the names of the network with its embeddings."""
    return "backbone." if run.kind == "denoiser" else ""


def _published(name: str, run: Run) -> str:
    """The published name of a parameter of ours."""
    embedding = re.search(r"embed_(noise|parameters)\.(.*)$", name)
    if embedding:
        kind = {"noise": "time_embedding", "parameters": "label_embedding"}[embedding[1]]
        return f"{_prefix(run)}{kind}.{embedding[2]}"
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return f"{_prefix(run)}backbone.{name}"


def _constants(run: Run, transformer: TransformerConfig) -> dict[str, Tensor]:
    """What the published encoding of positions stores."""
    name = f"{_prefix(run)}backbone.positional_embedding.0.freqs"
    return {name: SineEncoding(transformer.features).frequencies}
