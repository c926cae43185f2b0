import pytest
import torch
from runs import write_autoencoder, write_emulator


@pytest.fixture(params=["denoiser", "surrogate"])
def latent_run(request, tmp_path):
    torch.manual_seed(0)
    folder = write_emulator(tmp_path / "run", request.param, ae_run="somewhere")
    write_autoencoder(folder / "autoencoder")
    return folder
