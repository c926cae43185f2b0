"""Choose a sampler and a step spacing for few network evaluations, on finished diffusion models."""

from lola.core.cli import launch
from lola.core.waiting import loading
from lola.workflows import presets
from lola.workflows.studies.samplers import SamplerStudyConfig


def main(config: SamplerStudyConfig) -> None:
    """Sample from finished diffusion models with several samplers, orders, step spacings and numbers of
    network evaluations; choose the best at each number on the validation split, and compare it on the test
    split with more evaluations and with the sampler in use.

    Nothing is trained. Finished evaluations are reused; an interrupted study resumes.
    """
    with loading():
        from lola.workflows.forecast.show import show_plan
        from lola.workflows.run import run_reported
        from lola.workflows.studies.sampler_plan import SamplerPlan
        from lola.workflows.studies.sampler_report import report_samplers

    show_plan(config, SamplerPlan) if config.plan else run_reported(config, SamplerPlan, report_samplers)


if __name__ == "__main__":
    launch(main, presets.SAMPLERS, default="mini", given=presets.GIVEN)
