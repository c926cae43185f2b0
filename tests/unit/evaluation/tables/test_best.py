"""The last lines of a sweep: the best emulator of each kind, as in the report, against persistence."""

import io

import numpy as np
import pandas as pd
from rich.console import Console

from lola.evaluation.tables.best import best_table
from lola.storage.progress import Progress

ROWS = [
    ("persistence", "pixel", 1.0, 0, 0.5, 0.9),
    ("autoencoder", "latent", 64.0, 0, 0.01, 0.01),
    ("diffusion", "latent", 64.0, 8, 0.31, np.inf),
    ("diffusion", "latent", 64.0, 16, 0.3, np.inf),
    ("diffusion_ema", "latent", 256.0, 8, 0.35, 0.8),
    ("neural_solver", "latent", 256.0, 0, 0.6, 0.7),
    ("neural_solver", "pixel", 1.0, 0, np.inf, np.inf),
    ("neural_solver_ema", "pixel", 1.0, 0, 0.2, np.inf),
]


def lines_of(rows):
    keys = ["model", "space", "compression", "solver_steps"]
    table = pd.DataFrame(
        [
            dict(zip(keys, row[:4], strict=True)) | {"range": name, "value": value}
            for row in rows
            for name, value in zip(("1-20", "21-end"), row[4:], strict=True)
        ]
    )
    output = io.StringIO()
    Progress(Console(file=output, width=80)).show(best_table(table))
    return [line.strip() for line in output.getvalue().splitlines()]


def test_the_best_of_each_kind_is_shown_against_persistence():
    title, heading, *lines = lines_of(ROWS)
    assert title == "Best of each kind: VRMSE over lead times (* not below persistence)"
    assert heading.split() == ["1–20", "21–end"]
    assert [" ".join(line.split()) for line in lines] == [
        "Diffusion 0.300 (64×, 16 steps) 0.800 (256×, 8 steps)",
        "Neural solver 0.600* (256×) 0.700 (256×)",
        "Neural solver in pixel space 0.200 unstable",
        "Persistence 0.500 0.900",
    ]


def test_a_kind_that_is_unstable_everywhere_is_named():
    lines = lines_of([ROWS[0], ("diffusion", "latent", 64.0, 8, np.inf, np.inf)])
    assert " ".join(lines[2].split()) == "Diffusion unstable unstable"
