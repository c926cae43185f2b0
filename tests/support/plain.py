"""The published networks once more, in plain functions of their state dicts, and runs that are made of them.

Written from what is known of them and from nothing of lola. A network asks a `State` for its parameters by
published name and shape; the first time, they are drawn at random.
"""

import math

import torch
import torch.nn.functional as F
import yaml
from einops import rearrange

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class State(dict):
    """Parameters by name, drawn when they are first asked for."""

    def __call__(self, name, *shape):
        if name not in self:
            fan = math.prod(shape[1:]) or 1
            self[name] = torch.randn(shape) / (1.0 if len(shape) < 2 else fan**0.5)
        assert self[name].shape == shape
        return self[name]

    def constant(self, name, value):
        self.setdefault(name, torch.as_tensor(value))


def write_run(folder, config, state):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(dict(state), folder / "state.pth")
    return folder


def conv(P, name, x, outputs, kernel=3, stride=1, periodic=False):
    spatial = x.ndim - 2
    kernel = [kernel] * spatial if isinstance(kernel, int) else kernel
    weight, bias = P(f"{name}.weight", outputs, x.shape[1], *kernel), P(f"{name}.bias", outputs)
    pads = [k // 2 for k in reversed(kernel) for _ in range(2)]
    x = F.pad(x, pads, mode="circular") if periodic else F.pad(x, pads)
    return CONVOLUTIONS[spatial](x, weight, bias, stride=stride)


def linear(P, name, x, outputs, bias=True):
    return F.linear(
        x, P(f"{name}.weight", outputs, x.shape[-1]), P(f"{name}.bias", outputs) if bias else None
    )


def mlp(P, name, first, x, width, outputs):
    x = F.silu(linear(P, f"{name}.{first}", x, width))
    return linear(P, f"{name}.{first + 2}", x, outputs)


def norm(P, name, x, kind):
    if kind == "group":
        return F.group_norm(x, min(16, x.shape[1]))
    P.constant(f"{name}.eps", 1e-5)
    return (x - x.mean(dim=1, keepdim=True)) / torch.sqrt(x.var(dim=1, keepdim=True) + 1e-5)


def attention(P, name, x, heads):
    """Attention over all positions, by torch's own module."""
    c = x.shape[1]
    module = torch.nn.MultiheadAttention(c, heads, batch_first=True)
    weights = {
        "in_proj_weight": P(f"{name}.in_proj_weight", 3 * c, c),
        "in_proj_bias": P(f"{name}.in_proj_bias", 3 * c),
        "out_proj.weight": P(f"{name}.out_proj.weight", c, c),
        "out_proj.bias": P(f"{name}.out_proj.bias", c),
    }
    module.load_state_dict(weights)
    tokens = x.flatten(2).transpose(1, 2)
    return module(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


def patterns(sizes):
    """Fine and coarse axes, channels first among the small ones: `(C h w)`, or `(C l h w)`."""
    small = ["p", "q", "r", "s"][: len(sizes)]
    pairs = " ".join(f"({each.upper()} {each})" for each in small)
    fine, coarse = f"N C {pairs}", f"N (C {' '.join(small)}) {' '.join(small).upper()}"
    return fine, coarse, dict(zip(small, sizes, strict=True))


def fold(x, sizes):
    fine, coarse, lengths = patterns(sizes)
    return rearrange(x, f"{fine} -> {coarse}", **lengths)


def unfold(x, sizes):
    fine, coarse, lengths = patterns(sizes)
    return rearrange(x, f"{coarse} -> {fine}", **lengths)


SATURATIONS = {
    "softclip2": lambda z: z / torch.sqrt(1 + (z / 5) ** 2),
    "softclip": lambda z: z / (1 + (z / 5).abs()),
    "tanh": lambda z: 5 * torch.tanh(z / 5),
    "arcsinh": torch.arcsinh,
    "rmsnorm": lambda z: z / torch.sqrt((z**2).mean(dim=1, keepdim=True) + 1e-5),
    None: lambda z: z,
}


class Autoencoder:
    """The convolutional autoencoder of a section `ae`."""

    def __init__(self, options, channels):
        self.P, self.channels = State(), channels
        self.o = {
            **{"kernel_size": 3, "stride": 2, "pixel_shuffle": True, "norm": "layer", "patch_size": 1},
            **{"attention_heads": {}, "ffn_factor": 1, "periodic": False, "saturation": "softclip2"},
            **options,
        }

    def conv(self, name, x, outputs, kernel=None, stride=1):
        kernel = kernel or self.o["kernel_size"]
        return conv(self.P, name, x, outputs, kernel, stride, self.o["periodic"])

    def blocks(self, name, x, level, first):
        heads = (self.o["attention_heads"] or {}).get(level)
        for j in range(first, first + self.o["hid_blocks"][level]):
            y = norm(self.P, f"{name}.{j}.norm", x, self.o["norm"])
            if heads:
                y = y + attention(self.P, f"{name}.{j}.attn.0", y, heads)
            kernel, c = (1 if heads else None), x.shape[1]
            y = F.silu(self.conv(f"{name}.{j}.ffn.0", y, self.o["ffn_factor"] * c, kernel))
            x = x + self.conv(f"{name}.{j}.ffn.3", y, c, kernel)
        return x

    def sizes(self, name, x):
        size = self.o[name]
        return [size] * (x.ndim - 2) if isinstance(size, int) else size

    def encode(self, x):
        widths = self.o["hid_channels"]
        x = fold(x, self.sizes("patch_size", x))
        for i, width in enumerate(widths):
            name = f"encoder.descent.{i}"
            if i == 0:
                x = self.conv(f"{name}.0", x, width)
            elif self.o["pixel_shuffle"]:
                x = self.conv(f"{name}.0.1", fold(x, self.sizes("stride", x)), width)
            else:
                x = self.conv(f"{name}.0", x, width, stride=self.sizes("stride", x))
            x = self.blocks(name, x, i, first=1)
        x = self.conv(f"{name}.{1 + self.o['hid_blocks'][-1]}", x, self.o["lat_channels"])
        return SATURATIONS[self.o["saturation"]](x)

    def decode(self, z):
        widths = self.o["hid_channels"]
        stride, x = self.sizes("stride", z), self.conv("decoder.ascent.0.0", z, widths[-1])
        for k, i in enumerate(reversed(range(len(widths)))):
            name, first = f"decoder.ascent.{k}", 1 if k == 0 else 0
            x = self.blocks(name, x, i, first)
            last = f"{name}.{first + self.o['hid_blocks'][i]}"
            if i == 0:
                patch = self.sizes("patch_size", z)
                return unfold(self.conv(last, x, self.channels * math.prod(patch)), patch)
            if self.o["pixel_shuffle"]:
                x = unfold(self.conv(f"{last}.0", x, widths[i - 1] * math.prod(stride)), stride)
            else:
                for axis, factor in enumerate(stride, 2):
                    x = x.repeat_interleave(factor, dim=axis)
                x = self.conv(f"{last}.1", x, widths[i - 1])


def sine(P, name, s, features):
    n = features // 2
    freqs = 1000 ** -(torch.arange(n) / (n - 1))
    P.constant(f"{name}.freqs", freqs)
    angles = s[..., None] * freqs
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def vit(P, prefix, o, x, mod):
    """The transformer of windows and masks, joined along channels."""
    patch = o.get("patch_size", 1)
    patch = [patch] * (x.ndim - 2) if isinstance(patch, int) else patch
    return unfold(transformer(P, prefix, o, fold(x, patch), mod, x.shape[1] // 2 * math.prod(patch)), patch)


class TransformerAutoencoder:
    """The transformer autoencoder of a section `ae`."""

    def __init__(self, options, channels):
        self.P, self.o, self.channels = State(), options, channels

    def encode(self, x):
        x = fold(x, [self.o["patch_size"]] * (x.ndim - 2))
        z = transformer(self.P, "encoder.", self.o, x, None, self.o["lat_channels"])
        return SATURATIONS[self.o.get("saturation", "softclip2")](z)

    def decode(self, z):
        patch = [self.o["patch_size"]] * (z.ndim - 2)
        outputs = self.channels * math.prod(patch)
        return unfold(transformer(self.P, "decoder.", self.o, z, None, outputs), patch)


def transformer(P, prefix, o, x, mod, outputs):
    axes, hidden = x.ndim - 2, o["hid_channels"]
    shape = x.shape[2:]
    p = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in shape), indexing="ij"), -1)
    p = p.reshape(-1, axes)
    skip = linear(P, f"{prefix}in_proj", x.flatten(2).transpose(1, 2), hidden)
    encoded = sine(P, f"{prefix}positional_embedding.0", p, hidden).flatten(1)
    x = skip + linear(P, f"{prefix}positional_embedding.2", encoded, hidden)
    for i in range(o["hid_blocks"]):
        name = f"{prefix}blocks.{i}"
        if mod is None:
            a, b, c, d = P(f"{name}.ada_zero", 4, hidden)
        else:
            width = mod.shape[-1]
            abcd = mlp(P, f"{name}.ada_zero", 0, mod, width, 4 * hidden)
            a, b, c, d = (each[:, None] for each in abcd.chunk(4, dim=-1))
        y = (1 + a) * F.layer_norm(x, (hidden,)) + b
        theta = p @ P(f"{name}.theta", axes, hidden // 2) if o.get("rope", True) else None
        y = y + rope_attention(P, f"{name}.msa", y, o["attention_heads"], theta, o.get("qk_norm", True))
        y = mlp_ffn(P, f"{name}.ffn", y, o.get("ffn_factor", 4))
        y = (x + c * y) / torch.sqrt(1 + c * c)
        x = (y + d * skip) / torch.sqrt(1 + d * d)
    x = linear(P, f"{prefix}out_proj", x, outputs)
    return x.transpose(1, 2).reshape(len(x), -1, *shape)


def mlp_ffn(P, name, x, factor):
    c = x.shape[-1]
    return linear(P, f"{name}.3", F.silu(linear(P, f"{name}.0", x, factor * c)), c)


def rope_attention(P, name, x, heads, theta, qk_norm):
    qkv = linear(P, f"{name}.qkv_proj", x, 3 * x.shape[-1], bias=False)
    q, k, v = rearrange(qkv, "B L (n H C) -> n B H L C", n=3, H=heads)
    if qk_norm:
        q, k = (each / torch.sqrt((each**2).mean(-1, keepdim=True) + 1e-5) for each in (q, k))
    if theta is not None:
        turn = torch.polar(torch.ones_like(theta), theta)
        turn = rearrange(turn, "L (H C) -> H L C", H=heads)
        q, k = (
            torch.view_as_real(
                torch.view_as_complex(rearrange(each, "B H L (C n) -> B H L C n", n=2).contiguous()) * turn
            ).flatten(-2)
            for each in (q, k)
        )
    weights = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1)
    return linear(P, f"{name}.y_proj", rearrange(weights @ v, "B H L C -> B L (H C)"), x.shape[-1])


def unet(P, prefix, o, x, mod):
    """The U-Net of windows and masks, joined along channels, up to three axes."""
    axes, channels, widths, blocks = x.ndim - 2, x.shape[1] // 2, o["hid_channels"], o["hid_blocks"]
    kernel, stride = (
        [o.get(name, default)] * axes if isinstance(o.get(name, default), int) else o[name]
        for name, default in (("kernel_size", 3), ("stride", 2))
    )
    heads, kind = o.get("attention_heads") or {}, o.get("norm", "layer")
    p = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in x.shape[2:]), indexing="ij"))
    states, mask = x.chunk(2, dim=1)
    x = torch.cat([states, p.expand(len(x), *p.shape), mask], dim=1)

    def level(name, x, i, first):
        for j in range(first, first + blocks[i]):
            c, inner = x.shape[1], f"{prefix}{name}.{j}"
            if mod is None:
                abc = P(f"{inner}.ada_zero", 3, c, *[1] * axes)
            else:
                abc = mlp(P, f"{inner}.ada_zero", 0, mod, mod.shape[-1], 3 * c)
                abc = rearrange(abc, "B (n C) -> n B C", n=3)
                abc = abc.reshape(*abc.shape, *[1] * axes)
            y = (1 + abc[0]) * norm(P, f"{inner}.norm", x, kind) + abc[1]
            if heads.get(i):
                y = y + attention(P, f"{inner}.attn", y, heads[i])
            k = 1 if heads.get(i) else kernel
            y = F.silu(conv(P, f"{inner}.ffn.0", y, o.get("ffn_factor", 1) * c, k))
            y = conv(P, f"{inner}.ffn.3", y, c, k)
            x = (x + abc[2] * y) / torch.sqrt(1 + abc[2] ** 2)
        return x

    memory = []
    for i, width in enumerate(widths):
        x = conv(P, f"{prefix}descent.{i}.0", x, width, kernel, 1 if i == 0 else stride)
        x = level(f"descent.{i}", x, i, 1)
        memory.append(x)
    memory.pop()
    for k, i in enumerate(reversed(range(len(widths)))):
        if k:
            skip = memory.pop()
            for axis, factor in enumerate(stride, 2):
                x = x.repeat_interleave(factor, dim=axis).narrow(axis, 0, skip.shape[axis])
            x = conv(P, f"{prefix}ascent.{k}.0", torch.cat([x, skip], dim=1), widths[i], kernel)
        x = level(f"ascent.{k}", x, i, 1 if k else 0)
    return conv(P, f"{prefix}ascent.{k}.{blocks[0] + (len(widths) > 1)}", x, channels, kernel)


NETWORKS = {"vit": vit, "unet": unet}


def neural_solver(P, o, x, mask, label):
    mod = (
        mlp(P, "label_embedding", 0, label, o["emb_features"], o["emb_features"])
        if label is not None
        else None
    )
    x = torch.cat([x * mask, mask.expand_as(x).float()], dim=1)
    return NETWORKS[o["arch"]](P, "backbone.", o, x, mod)


def scales(schedule, t):
    low, high = schedule["sigma_min"], schedule["sigma_max"]
    if schedule["name"] == "log_linear":
        return torch.ones_like(t), low ** (1 - t) * high**t
    ends = low / (1 + low), high / (1 + high)
    tau = t * (ends[1] - ends[0]) + ends[0]
    return torch.ones_like(t), (tau / (1 - tau)) ** schedule["scale"] * math.exp(schedule["shift"])


def denoise(P, o, x_t, t, mask, label):
    alpha, sigma = (each.reshape(-1, *[1] * (x_t.ndim - 1)) for each in scales(o["schedule"], t))
    width = o["emb_features"]
    noise = 10 * torch.log(sigma / alpha).flatten()
    mod = mlp(
        P, "backbone.time_embedding", 1, sine(P, "backbone.time_embedding.0", noise, width), width, width
    )
    if label is not None:
        mod = mod + mlp(P, "backbone.label_embedding", 0, label, width, width)
    x = torch.cat([x_t / torch.sqrt(alpha**2 + sigma**2), mask.expand_as(x_t).float()], dim=1)
    y = NETWORKS[o["arch"]](P, "backbone.backbone.", o, x, mod)
    v = alpha**2 + sigma**2
    return alpha / v * x_t + sigma / torch.sqrt(v) * y, sigma**2 / v
