"""A small sweep of known quality: noise of a known size is added to random fields."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from oracles import read_oracle
from pages import aggregates, report
from tidy_tables import score

from lola.data.description import EULER
from lola.evaluation.page.page import write_page
from lola.evaluation.page.sweep_page import make_page
from lola.evaluation.scores.rows import Subject
from lola.evaluation.tables.aggregates import Aggregates

LEAD_TIMES = np.array([4, 8, 24, 64])


def subject(model, trajectory, **keys):
    defaults = {"space": "latent", "compression": 16.0, "system": "euler", "dataset": "d", "fingerprint": "f"}
    return Subject(**(defaults | {"model": model, "trajectory": f"d/test/f.hdf5#{trajectory}"} | keys))


@pytest.fixture
def oracle() -> dict[str, torch.Tensor]:
    """Truth, members and their scores, as the published implementation gives them."""
    return read_oracle("metrics.npz")


@pytest.fixture(scope="session")
def sweep() -> tuple[pa.Table, pa.Table]:
    """Metrics and spectra: VRMSE 1.4 of persistence, 2 of the pixel-space solver, 0.05 to 0.2 of others."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for trajectory in range(3):
        truth = torch.randn(5, 4, 16, 16, generator=generator)
        noise = torch.randn(4, 5, 4, 16, 16, generator=generator)
        held = truth[None, :, :1].roll(1, -1).expand(1, -1, 4, -1, -1)
        pixel = {"space": "pixel", "compression": 1.0}
        for model, keys, prediction in (
            ("persistence", pixel, held),
            ("neural_solver", pixel, truth + 2 * noise[:1]),
            ("autoencoder", {}, truth + 0.05 * noise[:1]),
            ("neural_solver", {}, truth + 0.2 * noise[:1]),
            ("diffusion", {"members": 4, "solver_steps": 4}, truth + 0.4 * noise),
            ("diffusion", {"members": 4, "solver_steps": 8}, truth + 0.2 * noise),
            ("diffusion", {"members": 4, "solver_steps": 8, "target": "autoencoded"}, truth + 0.1 * noise),
        ):
            key = subject(model, trajectory, **keys)
            parts.append(score(key, truth, prediction, channels=EULER.channels, lead_times=LEAD_TIMES))
    metrics, spectra = zip(*parts, strict=True)
    return pa.concat_tables(metrics), pa.concat_tables(spectra)


@pytest.fixture(scope="session")
def scores(sweep) -> Aggregates:
    """The sweep, reduced."""
    return aggregates(*sweep)


@pytest.fixture(scope="session")
def written(sweep, tmp_path_factory) -> Path:
    """The page of the sweep's report."""
    return write_page(tmp_path_factory.mktemp("report"), make_page(**report(sweep)))
