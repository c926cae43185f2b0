"""Published U-Nets as ours: their options, and the names of their parameters.

Levels are numbered alike on the way down; on the way up, ours and theirs count from the deepest. A published
level lists what it applies in order: what leads to it, its blocks, what leads on; ours names these. In the
input their coordinates stand before the mask, and ours after it; where levels merge, the up-sampled
channels stand before the skipped ones, and ours after them.
"""

import re
from typing import Any

import torch
from torch import Tensor

from lola.models.unet_config import UNetConfig
from lola.reference.options import read_attention_heads, read_choice, read_options, read_size
from lola.reference.published_run import PublishedRun, Reorder

OPTIONS = {
    "emb_features": "modulation",
    "hid_channels": "channels",
    "hid_blocks": "blocks",
    "kernel_size": "kernel_size",
    "stride": "stride",
    "attention_heads": "attention_heads",
    "ffn_factor": "ffn_factor",
    "norm": "norm",
    "dropout": "dropout",
    "identity_init": "identity_init",
}
DEFAULTS: dict[str, Any] = {
    "emb_features": 256,
    "hid_channels": (64, 128, 256),
    "hid_blocks": (3, 3, 3),
    "kernel_size": 3,
    "stride": 2,
    "attention_heads": None,
    "dropout": None,
}
NAMES = (
    (r"\.conv_in\.", ".ffn.0."),
    (r"\.conv_out\.", ".ffn.3."),
    (r"\.attention\.qkv\.", ".attn.in_proj_"),
    (r"\.attention\.out\.", ".attn.out_proj."),
    (r"\.modulation\.", ".ada_zero."),
    (r"\.abc$", ".ada_zero"),
)


def read_config(run: PublishedRun, axes: int, ignored: set[str]) -> UNetConfig:
    """The U-Net of windows of `axes` axes, time among them."""
    read_choice(run, run.kind, "periodic", False)  # theirs wraps around time too
    read_choice(run, run.kind, "norm", "layer", "group")
    options = read_options(run, run.kind, OPTIONS, DEFAULTS, ignored | {"periodic"})
    for name in ("kernel_size", "stride"):
        if isinstance(options[name], int):
            options[name] = (options[name],) * axes  # one number is that of time too
    options["attention_heads"] = read_attention_heads(run, run.kind, options["attention_heads"])
    with run.translate_config_errors(run.kind):
        config = UNetConfig.from_json(options)
        config.kernels(axes - 1), config.strides(axes - 1)
    return config


def axes(run: PublishedRun, prefix: str) -> int:
    """Axes of a window: time and grid."""
    return read_size(run, run.kind, "spatial", run.tensor(f"{prefix}descent.0.0.weight").ndim - 2)


def outputs(run: PublishedRun, prefix: str, config: UNetConfig) -> int:
    """Channels of a state, by the weights."""
    (name,) = published("project_out.bias", config)
    return len(run.tensor(f"{prefix}{name}"))


def published(name: str, config: UNetConfig) -> list[str]:
    """The published name of a parameter of ours."""
    last = len(config.channels) - 1
    found = re.match(r"(down|up)\.(\d+)\.(into|blocks\.(\d+))\.(.*)$", name)
    if found is None:  # the last layer comes after the blocks of the finest level
        after = config.blocks[0] + (last > 0)
        return [name.replace("project_out", f"ascent.{last}.{after}")]
    way, level, part, block, rest = found.groups()
    leads = way == "down" or level != "0"
    place = 0 if part == "into" else int(block) + leads
    name = f"{'descent' if way == 'down' else 'ascent'}.{level}.{place}.{rest}"
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return [name]


def constants(config: UNetConfig) -> dict[str, Tensor]:
    """What the published normalisation stores."""
    if config.norm != "layer":
        return {}
    levels = range(len(config.channels))
    ours = [f"down.{i}.blocks.{j}" for i in levels for j in range(config.blocks[i])]
    ours += [f"up.{levels[-1] - i}.blocks.{j}" for i in levels for j in range(config.blocks[i])]
    return {published(f"{block}.norm.eps", config)[0]: torch.tensor(1e-5) for block in ours}


def reorder(config: UNetConfig, sizes: dict[str, int]) -> Reorder:
    """Ours of theirs: what is joined in our order, free parameters without axes of size 1."""
    c, axes, widths = sizes["channels"], sizes["spatial"] + 1, config.channels

    def change(name: str, tensor: Tensor) -> Tensor:
        merge = re.search(r"up\.(\d+)\.into\.weight$", name)
        if merge:
            level = len(widths) - 1 - int(merge[1])
            return _rearranged(tensor, [widths[level + 1], widths[level]], [1, 0])
        if name.endswith("down.0.into.weight"):
            return _rearranged(tensor, [c, axes, c], [0, 2, 1])
        if name.endswith(".abc") and tensor.ndim > 2 and tensor[0, 0].numel() == 1:
            return tensor.flatten(1)
        return tensor

    return change


def _rearranged(weight: Tensor, parts: list[int], order: list[int]) -> Tensor:
    """A convolution's weight with the parts of its input in another order; other sizes are left alone."""
    if weight.ndim < 2 or weight.shape[1] != sum(parts):
        return weight
    split = weight.split(parts, dim=1)
    return torch.cat([split[i] for i in order], dim=1)
