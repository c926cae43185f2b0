"""The configuration of a study of samplers."""

import dataclasses
import functools
import itertools
from typing import Annotated, Literal

from lola.core.config import Distinct, DistinctOrNone, Within, prefix_options, require, runtime_field
from lola.emulation.sampling_config import SamplerConfig, SolverSteps
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.workflow_config import WorkflowConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerStudyConfig(WorkflowConfig):
    """A study of samplers on finished diffusion models of one physical system.

    Arguments:
        emulators: Diffusion models, each a stage's folder, name or fingerprint, runs:/RUN_ID,
            models:/NAME/VERSION, or the name of a registered model; none for all finished ones of the storage
            root that were trained on these data.
        samplers: Samplers by name, with options as suffixes as in `exponential_data-order3` or `ddim-eta0.5`.
        spacings: Step spacings by name, `power` with its exponent as a suffix as in `power-7`.
        steps: Numbers of network evaluations per window; smaller ones are compared with the last.
        fine: The sampler of the reference, with many evaluations.
        metric: The error metric by which samplers are chosen.
        tolerance: By how much the error of fewer evaluations may be larger.
        evaluation: Options of the evaluations; its sampler is the one in use, which others are compared with.
    """

    emulators: DistinctOrNone[str] = runtime_field(())
    samplers: Distinct[str]
    spacings: Distinct[str] = ("time", "log_snr", "angle", "power-7")
    steps: Distinct[SolverSteps] = (2, 4, 6, 8, 16)
    fine: SamplerConfig = dataclasses.field(default_factory=functools.partial(SamplerConfig, steps=64))
    metric: Literal["vrmse", "crps"] = "vrmse"
    tolerance: Annotated[float, Within("(0, 1e6]")] = 0.03
    evaluation: EvaluationConfig

    def validate(self) -> None:
        require(list(self.steps) == sorted(self.steps), f"--steps {self.steps} must rise")
        require(len(self.steps) > 1, f"--steps needs fewer steps to compare with {self.steps[0]}")
        require(
            self.fine.steps > self.steps[-1],
            f"--fine.steps: the fine reference needs more steps than {self.steps[-1]}, not {self.fine.steps}",
        )
        scoring = self.evaluation
        require(scoring.subject == "emulator" and scoring.guidance is None, "a study draws without guidance")
        require(
            scoring.split == "test", "a study chooses on the validation split and reports on the test split"
        )
        for title in self.candidates():
            require(
                self.at(title, self.steps[-1]) is not None,
                f"{title} evaluates the network {SamplerConfig.titled(title).cost} times for each step of "
                f"its own, which does not divide {self.steps[-1]}",
            )

    def fit(self, data: DatasetInfo) -> None:
        with prefix_options("evaluation."):
            self.evaluation.check_steps(min(data.longest("valid"), data.longest("test")))

    @property
    def present(self) -> SamplerConfig:
        return self.evaluation.sampler or SamplerConfig()

    def candidates(self) -> dict[str, tuple[str, str]]:
        """Titles of samplers with spacings, each with those of both alone; the one in use comes first.

        Raises:
            ConfigError: A title is that of no sampler, or of no spacing.
        """
        pairs = itertools.product(self.samplers, self.spacings)
        lines = [self.present, *(SamplerConfig.titled(f"{sampler}-{spacing}") for sampler, spacing in pairs)]
        return {
            line.title: (line.replace(spacing="time", exponent=None).title, line.spaced) for line in lines
        }

    def at(self, title: str, steps: int) -> SamplerConfig | None:
        """A candidate with so many network evaluations; None if its own steps do not divide them."""
        return SamplerConfig.titled(title, steps) if steps % SamplerConfig.titled(title).cost == 0 else None
