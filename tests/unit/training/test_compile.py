"""Compiled networks in the training loop, on the CPU."""

import pytest
import torch
from safetensors.torch import load_file
from sources import Single

from lola.core.seeding import SampleGenerator, seed_process
from lola.models.autoencoder_config import AutoencoderConfig
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.loop import train

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
MODEL = AutoencoderConfig(latent_channels=2, channels=(4,), blocks=(1,), dropout=0.5)
CONFIG = TrainingConfig(
    steps=4, batch_size=4, optimizer=OptimizerConfig(learning_rate=1e-2), report_every=2, valid_samples=4
)


class Fields(Single):
    """States of noise."""

    def __len__(self):
        return 8

    def read(self, index, key):
        return SampleGenerator([(index,)]).normal(2, 1, 8, 8)[0], torch.zeros(1)


def run(folder, model=MODEL, resume=None, **how):
    seed_process(0, "weights")
    network, losses = model.build(2, 2), {}

    def report(step, metrics, save):
        losses[step] = metrics["valid/loss"]
        (folder / str(step)).mkdir(parents=True)
        save(folder / str(step))

    train(network, CONFIG.replace(**how), Fields(), Fields(), report=report, resume=resume)
    return network, losses


def test_compiled_training_with_recomputed_blocks_is_eager_training(tmp_path):
    model = MODEL.replace(dropout=0.0)
    eager, losses = run(tmp_path / "eager", model)
    network, found = run(tmp_path / "compiled", model, compile=True, recompute=True)
    assert found == pytest.approx(losses, rel=1e-5)
    assert network.state_dict().keys() == eager.state_dict().keys()
    for name, value in load_file(tmp_path / "eager" / "4" / "model.safetensors").items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_compiled_training_drops_and_resumes(tmp_path):
    _, whole = run(tmp_path / "whole", compile=True, ema=0.9)
    _, undropped = run(tmp_path / "undropped", MODEL.replace(dropout=0.0))
    assert whole[4] != pytest.approx(undropped[4], rel=1e-4)
    _, rest = run(tmp_path / "rest", resume=tmp_path / "whole" / "2", compile=True, ema=0.9)
    assert rest[4] == pytest.approx(whole[4], rel=1e-5)
    _, eagerly = run(tmp_path / "eagerly", resume=tmp_path / "whole" / "2", ema=0.9)
    assert eagerly[4] == pytest.approx(whole[4], rel=0.2)
