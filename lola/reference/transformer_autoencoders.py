"""Published transformer autoencoders as ours: their options, and the names of their parameters."""

from typing import Any

from torch import Tensor

from lola.models.autoencoder import Autoencoder
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig
from lola.nn.embedding import SineEncoding
from lola.reference import transformers
from lola.reference.options import read_choice, read_options, read_size
from lola.reference.published_run import PublishedRun

OPTIONS = {
    "lat_channels": "latent_channels",
    "saturation": "saturation",
    **{theirs: ours for theirs, ours in transformers.OPTIONS.items() if theirs != "emb_features"},
}
DEFAULTS: dict[str, Any] = {
    "saturation": "softclip2",
    **{name: value for name, value in transformers.DEFAULTS.items() if name != "emb_features"},
}


def read_config(run: PublishedRun, ignored: set[str]) -> TransformerAutoencoderConfig:
    """The autoencoder of a section `ae`."""
    read_choice(run, "ae", "window_size", None)
    read_choice(run, "ae", "unpatch_size", None, 1)
    options = read_options(run, "ae", OPTIONS, DEFAULTS, ignored | {"window_size", "unpatch_size"})
    options["saturation"] = options["saturation"] or "none"
    with run.translate_config_errors("ae"):
        return TransformerAutoencoderConfig.from_json(options)


def sizes(run: PublishedRun, config: TransformerAutoencoderConfig) -> dict[str, int]:
    """The sizes that the data decided, by the weights."""
    position = run.tensor("encoder.positional_embedding.2.weight")
    spatial = read_size(run, "ae", "spatial", position.shape[-1] // max(1, len(position)))
    inputs = run.tensor("encoder.in_proj.weight").shape[-1]
    return {"channels": inputs // config.patch_size**spatial, "spatial": spatial}


def published(name: str) -> list[str]:
    """The published name of a parameter of ours."""
    part, _, inner = name.split(".", 2)  # encoder.1 and decoder.0 are the transformers
    return [f"{part}.{theirs}" for theirs in transformers.published(inner)]


def constants(model: Autoencoder, config: TransformerAutoencoderConfig) -> dict[str, Tensor]:
    """What the published encodings of positions store."""
    frequencies = SineEncoding(config.features).frequencies
    return {f"{part}.positional_embedding.0.freqs": frequencies for part in ("encoder", "decoder")}
