"""A small sweep of known quality: noise of a known size is added to random fields."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from lola.data.systems import EULER
from lola.evaluation.score import Subject, score

LEAD_TIMES = np.array([4, 8, 24, 64])


def subject(model, trajectory, **keys):
    defaults = {"space": "latent", "compression": 16.0, "system": "euler", "dataset": "d", "fingerprint": "f"}
    return Subject(**(defaults | {"model": model, "trajectory": f"d/test/f.hdf5#{trajectory}"} | keys))


@pytest.fixture(scope="session")
def sweep() -> tuple[pa.Table, pa.Table]:
    """Metrics and spectra: VRMSE about 1.4 of persistence, 0.1 of the others, 2 of the pixel-space solver."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for trajectory in range(3):
        truth = torch.randn(5, 4, 16, 16, generator=generator)
        noise = torch.randn(4, 5, 4, 16, 16, generator=generator)
        pixel = {"space": "pixel", "compression": 1.0}
        for keys, prediction in (
            (
                subject("persistence", trajectory, **pixel),
                truth[None, :, :1].roll(1, -1).expand(1, -1, 4, -1, -1),
            ),
            (subject("neural_solver", trajectory, **pixel), truth + 2 * noise[:1]),
            (subject("autoencoder", trajectory), truth + 0.05 * noise[:1]),
            (subject("neural_solver", trajectory), truth + 0.2 * noise[:1]),
            (subject("diffusion", trajectory, members=4, solver_steps=4), truth + 0.4 * noise),
            (subject("diffusion", trajectory, members=4, solver_steps=8), truth + 0.2 * noise),
            (
                subject("diffusion", trajectory, members=4, solver_steps=8, target="autoencoded"),
                truth + 0.1 * noise,
            ),
        ):
            parts.append(score(keys, truth, prediction, channels=EULER.channels, lead_times=LEAD_TIMES))
    return pa.concat_tables([metrics for metrics, _ in parts]), pa.concat_tables(
        [spectra for _, spectra in parts]
    )
