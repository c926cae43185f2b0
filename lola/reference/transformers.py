"""Published transformers as ours: their options, and the names of their parameters."""

import math
import re
from typing import Any

from torch import Tensor

from lola.models.transformer_config import TransformerConfig
from lola.nn.embedding import SineEncoding
from lola.reference.options import read_choice, read_options, read_size
from lola.reference.published_run import PublishedRun, Reorder, keep_layout

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
NAMES = (
    (r"^project_in\.", "in_proj."),
    (r"^project_out\.", "out_proj."),
    (r"^position\.", "positional_embedding.2."),
    (r"\.attention\.qkv\.", ".msa.qkv_proj."),
    (r"\.attention\.out\.", ".msa.y_proj."),
    (r"\.feedforward\.", ".ffn."),
    (r"\.modulation\.", ".ada_zero."),
    (r"\.abcd$", ".ada_zero"),
)


def read_config(run: PublishedRun, axes: int, ignored: set[str]) -> TransformerConfig:
    """The transformer of windows of `axes` axes, time among them."""
    for name in ("window_size", "unpatch_size"):
        read_choice(run, run.kind, name, None)
    options = read_options(run, run.kind, OPTIONS, DEFAULTS, ignored | {"window_size", "unpatch_size"})
    if isinstance(options["patch_size"], int):
        options["patch_size"] = (options["patch_size"],) * axes  # one number is that of time too
    with run.translate_config_errors(run.kind):
        config = TransformerConfig.from_json(options)
        config.patches(axes - 1)
    return config


def axes(run: PublishedRun, prefix: str) -> int:
    """Axes of a window: time and grid."""
    position = run.tensor(f"{prefix}positional_embedding.2.weight")
    return read_size(run, run.kind, "spatial", position.shape[-1] // max(1, len(position)))


def outputs(run: PublishedRun, prefix: str, config: TransformerConfig) -> int:
    """Channels of a state, by the weights."""
    cells = math.prod(config.patches(axes(run, prefix) - 1))
    return len(run.tensor(f"{prefix}out_proj.weight")) // cells


def published(name: str, config: TransformerConfig | None = None) -> list[str]:
    """The published name of a parameter of ours."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return [name]


def constants(config: TransformerConfig) -> dict[str, Tensor]:
    """What the published encoding of positions stores."""
    return {"positional_embedding.0.freqs": SineEncoding(config.features).frequencies}


def reorder(config: TransformerConfig, sizes: dict[str, int]) -> Reorder:
    """Parameters are laid out alike."""
    return keep_layout
