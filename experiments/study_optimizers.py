"""Compare optimisers on the autoencoder, over learning rates and seeds, as the paper's Table 4."""

import functools

import announce  # noqa: F401

from lola.core.cli import launch
from lola.workflows import presets
from lola.workflows.run import run_reported
from lola.workflows.studies.optimizer_report import report_optimizers
from lola.workflows.studies.optimizers import OptimizerPlan, OptimizerStudyConfig


def main(config: OptimizerStudyConfig) -> None:
    """Train the same autoencoder with Adam (without and with identity initialisation), PSGD and SOAP, at a
    grid of learning rates and over seeds, and report the curves and a table beside the paper's Table 4.

    Missing data are simulated first. Whatever is finished is reused; an interrupted study goes on.
    """
    build = functools.partial(OptimizerPlan, config)
    run_reported(config, f"optimisers {config.system}", build, report_optimizers)


if __name__ == "__main__":
    launch(main, presets.STUDIES, default="mini")
