"""Published convolutional autoencoders as ours: their options, and the names of their parameters."""

import math
import re
from typing import Any

import torch
from torch import Tensor

from lola.models.autoencoder import Autoencoder
from lola.models.autoencoder_config import AutoencoderConfig
from lola.reference.options import read_attention_heads, read_choice, read_options, read_size
from lola.reference.published_run import PublishedRun

OPTIONS = {
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
DEFAULTS: dict[str, Any] = {
    "hid_channels": (64, 128, 256),
    "hid_blocks": (3, 3, 3),
    "dropout": None,
    "saturation": "softclip2",
}
NAMES = (
    (r"^encoder\.levels\.", ("encoder.descent.",)),
    (r"^decoder\.levels\.", ("decoder.ascent.",)),
    (r"\.conv_in\.", (".ffn.0.",)),
    (r"\.conv_out\.", (".ffn.3.",)),
    (r"\.attention\.qkv\.", (".attn.0.in_proj_", ".attn.0.qkv_proj.")),
    (r"\.attention\.out\.", (".attn.0.out_proj.", ".attn.0.y_proj.")),
)


def read_config(run: PublishedRun, ignored: set[str]) -> AutoencoderConfig:
    """The autoencoder of a section `ae`."""
    read_choice(run, "ae", "norm", "layer", "group")
    options = read_options(run, "ae", OPTIONS, DEFAULTS, ignored)
    options["attention_heads"] = read_attention_heads(run, "ae", options.get("attention_heads"))
    options["saturation"] = options["saturation"] or "none"
    with run.translate_config_errors("ae"):
        return AutoencoderConfig.from_json(options)


def sizes(run: PublishedRun, config: AutoencoderConfig) -> dict[str, int]:
    """The sizes that the data decided, by the weights."""
    weight = run.tensor("encoder.descent.0.0.weight")
    spatial = read_size(run, "ae", "spatial", weight.ndim - 2)
    patch = config.patch_size if isinstance(config.patch_size, tuple) else (config.patch_size,) * spatial
    return {"channels": weight.shape[1] // math.prod(patch), "spatial": spatial}


def published(name: str) -> list[str]:
    """The published names of a parameter of ours."""
    names = [name]
    for pattern, replacements in NAMES:
        if re.search(pattern, name):
            names = [re.sub(pattern, replacement, old) for replacement in replacements for old in names]
    return names


def constants(model: Autoencoder, config: AutoencoderConfig) -> dict[str, Tensor]:
    """What the published normalisation stores."""
    blocks = [name for name in model.state_dict() if name.endswith(".conv_in.weight")]
    names = [published(name)[0].replace(".ffn.0.weight", ".norm.eps") for name in blocks]
    return {name: torch.tensor(1e-5) for name in names} if config.norm == "layer" else {}
