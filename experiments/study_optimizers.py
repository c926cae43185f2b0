"""Compare optimisers on the autoencoder, over learning rates and seeds, as the paper's Table 4."""

from lola.core.cli import launch
from lola.core.waiting import loading
from lola.workflows import presets
from lola.workflows.studies.optimizers import OptimizerStudyConfig


def main(config: OptimizerStudyConfig) -> None:
    """Train the same autoencoder with Adam (without and with identity initialisation), PSGD and SOAP, at a
    grid of learning rates and over seeds, and report the curves and a table next to the paper's Table 4.

    Missing data are simulated first. Finished stages are reused; an interrupted study resumes.
    """
    with loading():
        from lola.workflows.forecast.show import show_plan
        from lola.workflows.run import run_reported
        from lola.workflows.studies.optimizer_plan import OptimizerPlan
        from lola.workflows.studies.optimizer_report import report_optimizers

    show_plan(config, OptimizerPlan) if config.plan else run_reported(
        config, OptimizerPlan, report_optimizers
    )


if __name__ == "__main__":
    launch(main, presets.STUDIES, default="mini")
