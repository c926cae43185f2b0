"""Finished stages load as the emulators and autoencoders that were committed."""

import pytest
import torch

from lola.core.errors import DataError
from lola.emulation.emulator import Emulator, load_autoencoder, load_emulator
from lola.emulation.sampling_config import SamplerConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig
from lola.storage.stages import EMA_WEIGHTS, WEIGHTS, Stage
from lola.training.checkpoint import save_weights

TRANSFORMER = TransformerConfig(features=16, blocks=2, heads=2, modulation=8)
WINDOW = 5


def commit(root, kind, what, config, sizes, model, **details):
    stage = Stage(root=root, kind=kind, system="euler", what=what, config=config, inputs={})
    stage.folder.mkdir(parents=True)
    save_weights(stage.folder / WEIGHTS, model)
    stage.commit(model={"type": type(config).__name__, **config.to_json()}, sizes=sizes, **details)
    return stage


@pytest.mark.parametrize(
    "autoencoder",
    [
        AutoencoderConfig(latent_channels=4, channels=(8, 8), blocks=(1, 1)),
        TransformerAutoencoderConfig(latent_channels=4, patch_size=2, features=16, blocks=1, heads=2),
    ],
    ids=["convolutional", "transformer"],
)
@pytest.mark.parametrize(
    "network",
    [TRANSFORMER, UNetConfig(channels=(8, 8), blocks=(1, 1), modulation=8)],
    ids=["transformer", "unet"],
)
@pytest.mark.parametrize("kind", [DiffusionConfig, NeuralSolverConfig])
def test_finished_stages_load_as_what_was_committed(tmp_path, kind, network, autoencoder):
    sizes = {"channels": 2, "spatial": 2}
    codec = autoencoder.build(**sizes).eval()
    codec_stage = commit(tmp_path, "autoencoders", "autoencoder", autoencoder, sizes, codec)
    config = kind(network=network)
    sizes = {"channels": 4, "parameters": 3, "spatial": 2, "window": WINDOW}
    model = config.build(**sizes).eval()
    stage = commit(tmp_path, "emulators", "emulator", config, sizes, model, autoencoder=codec_stage.name)

    sampler = SamplerConfig(steps=2)
    emulator, again = load_emulator(stage.folder, sampler), Emulator(model=model, sampler=sampler)
    assert emulator.model.config == config
    assert emulator.autoencoder.config == autoencoder
    x = torch.randn(1, 2, 1, 4, 4)
    z = emulator.encode(x)
    assert torch.equal(z[:, :, 0], codec.encode(x[:, :, 0]))
    label = torch.randn(1, 3)
    drawn, drawn_again = (
        torch.cat(list(each.rollout(z, label, states=4, keys=[(0,)])), dim=2) for each in (emulator, again)
    )
    assert torch.equal(drawn, drawn_again)


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_an_emulator_is_loaded_with_either_weights_and_the_autoencoder_it_learned_from(tmp_path):
    config = AutoencoderConfig(latent_channels=4, channels=(8, 8), blocks=(1, 1))
    sizes = {"channels": 2, "spatial": 2}
    codecs = [config.build(**sizes) for _ in range(2)]
    codec = commit(tmp_path, "autoencoders", "autoencoder", config, sizes, codecs[0])
    save_weights(codec.folder / EMA_WEIGHTS, codecs[1])
    solver = NeuralSolverConfig(network=TRANSFORMER)
    sizes = {"channels": 4, "parameters": 3, "spatial": 2, "window": WINDOW}
    models = [solver.build(**sizes) for _ in range(2)]
    stage = commit(tmp_path, "emulators", "emulator", solver, sizes, models[0], autoencoder=codec.name)
    save_weights(stage.folder / EMA_WEIGHTS, models[1])
    for weights, autoencoder, model in zip(("raw", "ema"), codecs, models, strict=True):
        assert same(load_autoencoder(codec.folder, weights), autoencoder)
        loaded = load_emulator(stage.folder, weights=weights)
        assert same(loaded.model, model)
        assert same(loaded.autoencoder, codecs[0])
    (stage.folder / EMA_WEIGHTS).unlink()
    with pytest.raises(DataError, match="no averaged weights"):
        load_emulator(stage.folder, weights="ema")
