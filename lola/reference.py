"""Import of runs that the authors of `Lost in Latent Space` published.

A run is a folder with `config.yaml` and `state.pth`. Its architecture is read from the section `ae`,
`denoiser` or `surrogate`; sizes that its data decided are read from the weights. Options that only describe
how it was trained are ignored; any other option that we do not know is an error, since it may change what the
network computes.
"""

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor, nn

from lola.autoencoder import Autoencoder, AutoencoderConfig
from lola.diffusion import Diffusion, DiffusionConfig
from lola.errors import DataError
from lola.neural_solver import NeuralSolver, NeuralSolverConfig
from lola.schedule import ScheduleConfig
from lola.transformer import TransformerConfig

State = dict[str, Tensor]
Published = Autoencoder | Diffusion | NeuralSolver
M = TypeVar("M", bound=nn.Module)

WINDOW = 5  # published runs that do not say otherwise
# Training aids, and sizes that the weights tell too
IGNORED = {
    *("name", "arch", "checkpointing", "latent_noise"),
    *("pix_channels", "channels", "label_features", "spatial"),
}

AUTOENCODER_OPTIONS = {
    "lat_channels": "latent_channels",
    "hid_channels": "channels",
    "hid_blocks": "blocks",
    "patch_size": "patch_size",
    "kernel_size": "kernel_size",
    "stride": "stride",
    "pixel_shuffle": "pixel_shuffle",
    "attention_heads": "attention_heads",
    "ffn_factor": "ffn_factor",
    "dropout": "dropout",
    "periodic": "periodic",
    "norm": "norm",
    "identity_init": "identity_init",
    "saturation": "saturation",
}
TRANSFORMER_OPTIONS = {
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

AUTOENCODER_NAMES = (
    (r"^encoder\.descent\.", "encoder.levels."),
    (r"^decoder\.ascent\.", "decoder.levels."),
    (r"\.ffn\.0\.", ".conv_in."),
    (r"\.ffn\.3\.", ".conv_out."),
    (r"\.attn\.(0\.)?qkv_proj\.", ".attention.qkv."),
    (r"\.attn\.(0\.)?y_proj\.", ".attention.out."),
)
TRANSFORMER_NAMES = (
    (r"^(backbone\.)*", ""),
    (r"^in_proj\.", "network.project_in."),
    (r"^out_proj\.", "network.project_out."),
    (r"^positional_embedding\.2\.", "network.position."),
    (r"^blocks\.", "network.blocks."),
    (r"\.msa\.qkv_proj\.", ".attention.qkv."),
    (r"\.msa\.y_proj\.", ".attention.out."),
    (r"\.ffn\.", ".feedforward."),
    (r"\.ada_zero\.", ".modulation."),
    (r"\.ada_zero$", ".abcd"),
    (r"^time_embedding\.", "embed_noise."),
    (r"^label_embedding\.", "embed_parameters."),
)
CONSTANTS = re.compile(r"\.(eps|freqs)$")


def load_published(folder: Path | str) -> Published:
    """Load the network of a published run, in evaluation mode.

    Arguments:
        folder: The run's folder.

    Raises:
        DataError: The folder is not a run, its configuration is one that we cannot be, or its weights are
            others than its configuration tells.
    """
    folder = Path(folder)
    config, state = _read(folder)
    builders: dict[str, Callable[[dict[str, Any], State, int, Path], Published]] = {
        "ae": _autoencoder,
        "denoiser": _diffusion,
        "surrogate": _neural_solver,
    }
    sections = [section for section in builders if isinstance(config.get(section), dict)]
    if not sections:
        raise DataError(f"{folder / 'config.yaml'} has none of {', '.join(builders)}; is it a published run?")
    section = sections[-1]  # an emulator's configuration may also tell of its autoencoder
    window = (config.get("trajectory") or {}).get("length", WINDOW)
    state = _rename(state, AUTOENCODER_NAMES if section == "ae" else TRANSFORMER_NAMES)
    return builders[section](config[section], state, window, folder).eval()


def _read(folder: Path) -> tuple[dict[str, Any], State]:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        state = torch.load(folder / "state.pth", map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing; a run has config.yaml and state.pth") from None
    except yaml.YAMLError:
        raise DataError(f"{folder / 'config.yaml'} is not YAML; fetch it again") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
        raise DataError(f"{folder / 'state.pth'} is not a whole, plain state dict; fetch it again") from None
    if not isinstance(config, dict) or not isinstance(state, dict):
        raise DataError(f"{folder} holds something else than a configuration and a state dict")
    return config, state


def _autoencoder(section: dict[str, Any], state: State, window: int, folder: Path) -> Autoencoder:
    _expect(section, "arch", "dcae", folder)
    options = _options(section, AUTOENCODER_OPTIONS, folder)
    for name in ("patch_size", "kernel_size", "stride"):
        if name in options:
            options[name] = _same(options[name], name, folder)
    heads = options.pop("attention_heads", None) or {}
    options["attention_heads"] = sorted((int(level), number) for level, number in heads.items())
    options["saturation"] = options.get("saturation") or "none"
    config = AutoencoderConfig.from_json(options)
    weight = _tensor(state, "encoder.levels.0.0.weight", folder)
    spatial = weight.ndim - 2
    return _fill(config.build(weight.shape[1] // config.patch_size**spatial, spatial), state, folder)


def _diffusion(section: dict[str, Any], state: State, window: int, folder: Path) -> Diffusion:
    schedule = section.get("schedule") or {}
    _expect(section, "masked", True, folder)
    _expect(schedule, "name", "log_logit", folder)
    transformer = _transformer(_without(section, "masked", "schedule"), state, folder)
    config = DiffusionConfig(
        network=transformer, schedule=ScheduleConfig.from_json(_without(schedule, "name"))
    )
    model = config.build(*_sizes(state, transformer, folder), window)
    return _fill(model, {f"denoiser.backbone.{name}": tensor for name, tensor in state.items()}, folder)


def _neural_solver(section: dict[str, Any], state: State, window: int, folder: Path) -> NeuralSolver:
    transformer = _transformer(section, state, folder)
    model = NeuralSolverConfig(network=transformer).build(*_sizes(state, transformer, folder), window)
    return _fill(model, state, folder)


def _transformer(section: dict[str, Any], state: State, folder: Path) -> TransformerConfig:
    _expect(section, "arch", "vit", folder)
    _expect(section, "window_size", None, folder)
    options = _options(_without(section, "window_size"), TRANSFORMER_OPTIONS, folder)
    patch_size = options.get("patch_size", 1)
    if isinstance(patch_size, int):
        # One number stands for the size along time too
        weight = _tensor(state, "network.position.weight", folder)
        options["patch_size"] = (patch_size,) * (weight.shape[1] // weight.shape[0])
    return TransformerConfig.from_json(options)


def _sizes(state: State, transformer: TransformerConfig, folder: Path) -> tuple[int, int, int]:
    """Channels of a state, parameters of a simulation and grid axes."""
    assert isinstance(transformer.patch_size, tuple)
    outputs = len(_tensor(state, "network.project_out.weight", folder))
    label = state.get("embed_parameters.0.weight")
    parameters = 0 if label is None else label.shape[1]
    return outputs // math.prod(transformer.patch_size), parameters, len(transformer.patch_size) - 1


def _options(section: dict[str, Any], names: dict[str, str], folder: Path) -> dict[str, Any]:
    unknown = sorted(set(section) - set(names) - IGNORED)
    if unknown:
        raise DataError(f"{folder / 'config.yaml'} has options that we do not know: {', '.join(unknown)}")
    return {names[key]: value for key, value in section.items() if key in names}


def _without(section: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}


def _expect(section: dict[str, Any], key: str, value: Any, folder: Path) -> None:
    found = section.get(key, value)
    if found != value:
        raise DataError(f"{folder / 'config.yaml'} has {key}: {found}; we know {value} alone")


def _same(value: Any, name: str, folder: Path) -> int:
    values = {value} if isinstance(value, int) else set(value)
    if len(values) != 1:
        raise DataError(f"{folder / 'config.yaml'} has {name}: {value}; we know equal sizes alone")
    return values.pop()


def _tensor(state: State, name: str, folder: Path) -> Tensor:
    if name not in state:
        raise DataError(f"{folder / 'state.pth'} has no tensor {name}; is it the weights of this run?")
    return state[name]


def _rename(state: State, names: tuple[tuple[str, str], ...]) -> State:
    renamed = {}
    for name, tensor in state.items():
        if not CONSTANTS.search(name):
            for pattern, replacement in names:
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
    return renamed


def _fill(model: M, state: State, folder: Path) -> M:
    ours = model.state_dict()
    for name in sorted(set(ours) ^ set(state)):
        fault = "lacks" if name in ours else "has a surplus"
        raise DataError(f"{folder / 'state.pth'} {fault} {name}; is it the weights of this run?")
    for name, tensor in state.items():
        if tensor.shape != ours[name].shape:
            raise DataError(
                f"{folder / 'state.pth'}: {name} is {tuple(tensor.shape)}, not {tuple(ours[name].shape)}"
            )
    model.load_state_dict(state)
    return model
