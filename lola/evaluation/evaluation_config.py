"""The configuration of evaluations."""

import dataclasses
from typing import Annotated, Literal

from lola.core.config import (
    Config,
    Count,
    Distinct,
    NonNegativeInt,
    Size,
    Within,
    added_field,
    check_gpus,
    require,
    runtime_field,
)
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.inference_config import InferenceConfig, Weights
from lola.emulation.observation_config import ObservationConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.training.precision import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Config):
    """What is scored, and how.

    Arguments:
        subject: What makes the predictions.
        weights: The subject's weights: those trained, or their moving average.
        sampler: How an emulator that has sampler steps, such as a diffusion model, is sampled.
        members: Size of the ensemble of a stochastic emulator; deterministic predictions have one member.
        trajectories: Trajectories of the split, drawn without repeats.
        starts: First states of the context; the trajectory is emulated once from each after which it goes on.
        context: Known states.
        overlap: States that a window shares with the one before.
        stride: Simulation steps between states.
        seed: Seeds the choice of trajectories and the members.
        observed: What is observed of the trajectories after the context, if anything is.
        guidance: How a diffusion model is guided by it.
        eps: What keeps ratios finite where the truth does not vary: 1e-6 of the variance of the training data
            (`relative`), or in the squared unit of the field, as in the paper (`published`).
        geometry: Whether means and integrals over the grid take its quadrature weights, and spectra a cosine
            transform where it is not periodic and none where it is uneven (`quadrature`), or all cells count
            the same and spectra take them for periodic, as in the paper (`published`).
        split: Which trajectories: choices are made on `valid`, and results are those of `test`.
        stochastic: Whether an emulator without a sampler is stochastic; a sweep decides it by the kind.
        precision: The type of the products of the emulator's network; autoencoders decode in float32.
        compile: Whether the emulator's network is compiled, by every worker: for many trajectories.
        chunk: States decoded and scored at once.
        gpus: GPUs of each worker; -1 is one where the cluster has any.
    """

    common = ("members", "trajectories", "stride")

    subject: Literal["emulator", "autoencoder", "persistence", "climatology"] = "emulator"
    weights: Weights = "raw"
    sampler: SamplerConfig | None = None
    members: Size = 16
    trajectories: Count = 64
    starts: Distinct[NonNegativeInt] = (0,)
    context: Size = 1
    overlap: Size = 1
    stride: Annotated[int, Within("[1, 1e9]")] = 4
    seed: int = 0
    observed: ObservationConfig | None = added_field(None)
    guidance: GuidanceConfig | None = added_field(None)
    split: Literal["test", "valid"] = added_field("test")
    precision: Precision = added_field("float32")
    stochastic: bool = added_field(False)
    eps: Literal["relative", "published"] = "relative"
    geometry: Literal["quadrature", "published"] = "quadrature"
    compile: bool = runtime_field(False)
    chunk: Count = runtime_field(64)
    gpus: Annotated[float, Within("[-1, 1024]")] = runtime_field(-1.0)

    def validate(self) -> None:
        require(self.gpus >= 0 or self.gpus == -1, f"--gpus must be -1 or at least 0, not {self.gpus}")
        check_gpus(self.gpus)
        both = (self.observed is None) == (self.guidance is None)
        require(both, "--guidance needs something --observed, and what is observed needs a guidance")
        if self.guidance is not None:
            require(self.sampler is not None, "only diffusion models, which have a sampler, can be guided")
            assert self.sampler is not None
            self.guidance.check(self.sampler)

    @property
    def random(self) -> bool:
        """Whether members are drawn: those of a stochastic emulator and of climatology are."""
        return self.sampler is not None or self.stochastic or self.subject == "climatology"

    @property
    def inference(self) -> InferenceConfig:
        """How the emulator's network is run."""
        return InferenceConfig(precision=self.precision, compile=self.compile)

    @property
    def guided(self) -> str:
        """The `guidance` column: the method and what was observed, or nothing."""
        if self.guidance is None or self.observed is None:
            return ""
        return f"{self.guidance.name} {self.observed.title}"

    def states(self, steps: int, start: int) -> int:
        """How many states a trajectory of `steps` states has from a start on."""
        return len(range(start, steps, self.stride))

    def check_steps(self, steps: int) -> None:
        """Raise `ConfigError` unless trajectories of `steps` states go on after the context of each start."""
        context, start = self.context, max(self.starts)
        require(
            start + context * self.stride < steps,
            f"trajectories of {steps} states end before one is left to predict after a context of {context} "
            f"states from state {start}, {self.stride} steps apart; choose a shorter --context, earlier "
            "--starts or a smaller --stride",
        )
