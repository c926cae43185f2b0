"""Published autoencoders as ours."""

from types import ModuleType
from typing import Any

from lola.models.autoencoder import Autoencoder
from lola.reference import convolutional_autoencoders, transformer_autoencoders
from lola.reference.options import read_choice, read_size
from lola.reference.published_run import PublishedRun, load_run_weights

ARCHITECTURES = {
    "dcae": convolutional_autoencoders,
    None: convolutional_autoencoders,
    "vit": transformer_autoencoders,
}
# Latent noise was never applied; the rest are sizes, training aids and sections that must be empty
IGNORED = {
    *("name", "arch", "loss", "checkpointing", "latent_noise"),
    *("pix_channels", "spatial", "encoder_only", "decoder_only"),
}


def build_autoencoder(run: PublishedRun) -> Autoencoder:
    """The autoencoder of a run, in evaluation mode.

    Raises:
        DataError: Its configuration describes an unsupported network, or its weights belong to another.
    """
    architecture, config = _read(run)
    with run.translate_config_errors("ae"):
        model = config.build(**autoencoder_sizes(run))
    return load_run_weights(run, model, architecture.published, architecture.constants(model, config))


def autoencoder_sizes(run: PublishedRun) -> dict[str, int]:
    """The sizes that the data decided, by the names of `build`: from the configuration, else the weights."""
    architecture, config = _read(run)
    sizes = architecture.sizes(run, config)
    return sizes | {"channels": read_size(run, "ae", "pix_channels", sizes["channels"])}


def _read(run: PublishedRun) -> tuple[ModuleType, Any]:
    """What knows the architecture, and the configuration of ours."""
    for name in ("encoder_only", "decoder_only"):
        read_choice(run, "ae", name, None, {})
    architecture = ARCHITECTURES[read_choice(run, "ae", "arch", *ARCHITECTURES)]
    return architecture, architecture.read_config(run, IGNORED)
