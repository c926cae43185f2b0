"""The configuration of a sweep, and what it is made of: trials, each a chain of stages."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import numpy as np

from lola.core.config import (
    Config,
    Distinct,
    DistinctOrNone,
    ListRule,
    NonNegativeInt,
    Size,
    Within,
    added_field,
    prefix_options,
    require,
    runtime_field,
)
from lola.data.systems import Symmetries
from lola.emulation.cache_config import CacheConfig
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.emulation.sampling_config import SolverSteps
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.emulator_config import EmulatorConfig
from lola.models.kinds import KINDS, EmulatorKind
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.shortcut_config import ShortcutConfig
from lola.models.transformer_autoencoder_config import AnyAutoencoder
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig
from lola.simulate.simulators import Simulation
from lola.training.config import TrainingConfig
from lola.workflows.arms import EmulatorArmConfig, find_candidates
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.workflow_config import WorkflowConfig

ENSEMBLE_BYTES = 32e9  # of the members of a trajectory, which an evaluation holds
Statistics = Literal["configured", "computed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig(WorkflowConfig):
    """A sweep over compression rate, model and solver steps for one physical system.

    Arguments:
        simulation: The simulation that creates missing datasets; with none, the datasets must exist.
        latent_channels: Numbers of latent channels: an autoencoder is trained for each compression rate.
        autoencoder: The autoencoder; its latent channels are set by --latent-channels.
        autoencoder_training: How autoencoders are trained.
        cache: Options of the latent caches.
        emulators: The kinds of latent emulators.
        arms: Further emulators, each with a name, to compare with those of the kinds.
        seeds: Training seeds of every emulator; autoencoders, which emulators share, keep that of their
            training. Default: the seed of each training.
        seeds_at: Latent channels at which emulators are trained with all seeds; elsewhere, also in pixel
            space, with the first one alone. Default: everywhere.
        diffusion: The latent diffusion model.
        neural_solver: The latent neural solver.
        crps_ensemble: The latent ensemble that is trained with the CRPS.
        shortcut: The latent diffusion model of few steps.
        emulator_training: How latent emulators are trained.
        pixel: The pixel-space emulator, if any.
        pixel_training: How the pixel-space emulator is trained.
        window: Number of states in an emulator's window.
        symmetries: Augmentation of training on fields; `published` flips gravity, as the paper's does.
        solver_steps: Sampler steps at which emulators that have any, such as diffusion models, are evaluated.
        contexts: Numbers of context states to evaluate emulators with, in addition to that of `evaluation`.
        evaluation: Options of the evaluations.
        observed: Observations of test trajectories; if given, diffusion models are also evaluated guided.
        guidance: The guidance method; guided evaluations take the largest number of solver steps.
        results: Folder to write the results of the finished sweep to, small enough to commit: a README with
            findings and tables, figures, and scores as Parquet.
        statistics: Standardise fields by the statistics of The Well's training set (`configured`) or of this
            training set (`computed`, also used where a system has no configured ones).
    """

    superseded = {"autoencoder.latent_channels": "latent_channels"}  # noqa: RUF012

    simulation: Simulation | None = None
    latent_channels: Distinct[Size]
    autoencoder: AnyAutoencoder
    autoencoder_training: TrainingConfig
    cache: CacheConfig
    emulators: Distinct[str] = added_field(("neural_solver", "diffusion"))
    arms: Annotated[tuple[EmulatorArmConfig, ...], ListRule(empty=True, repeats=True)] = added_field(())
    seeds: DistinctOrNone[NonNegativeInt] = added_field(())
    seeds_at: DistinctOrNone[Size] = added_field(())
    diffusion: DiffusionConfig
    neural_solver: NeuralSolverConfig
    crps_ensemble: CRPSEnsembleConfig | None = added_field(None)
    shortcut: ShortcutConfig | None = added_field(None)
    emulator_training: TrainingConfig
    pixel: NeuralSolverConfig | CRPSEnsembleConfig | None = None
    pixel_training: TrainingConfig
    window: Annotated[int, Within("[2, 65536]")] = 5
    symmetries: Symmetries = "plain"
    solver_steps: Distinct[SolverSteps] = (4, 8, 16)
    contexts: DistinctOrNone[Size] = ()
    evaluation: EvaluationConfig
    observed: ObservationConfig | None = added_field(None)
    guidance: GuidanceConfig | None = added_field(None)
    statistics: Statistics = "configured"
    results: str | None = runtime_field(None)

    def validate(self) -> None:
        check_simulation(self.system, self.simulation)
        for name in self.emulators:
            require(name in KINDS, f"--emulators: unknown kind {name!r}; choose from {', '.join(KINDS)}")
        find_candidates(self)
        for n in self.seeds_at:
            require(
                n in self.latent_channels and len(self.seeds) > 1,
                f"--seeds-at {n} needs several --seeds, and {n} among --latent-channels",
            )
        context = self.evaluation.context
        require(
            context not in self.contexts,
            f"--contexts names {context}, which is that of --evaluation.context already",
        )
        for name, known in (
            ("evaluation.context", context),
            *(("contexts", further) for further in self.contexts),
            ("evaluation.overlap", self.evaluation.overlap),
        ):
            require(
                known < self.window,
                f"--{name} {known} leaves nothing of a --window of {self.window} states to emulate",
            )
        sampler = self.evaluation.sampler
        require(sampler is not None, "--evaluation.sampler: a sweep needs one, for its diffusion models")
        assert sampler is not None
        for steps in self.solver_steps:
            require(
                steps % sampler.cost == 0,
                f"--solver-steps must be multiples of {sampler.cost}, the evaluations of a step of "
                f"{sampler.name}, not {steps}",
            )
        require(self.evaluation.split == "test", "--evaluation.split: a sweep is scored on the test split")
        require(
            self.evaluation.guidance is None,
            "--evaluation.guidance: a sweep is guided by --observed and --guidance instead",
        )
        self.guided_evaluation()

    @property
    def ineffective(self) -> dict[str, str]:
        chosen = " ".join(self.emulators)
        return {
            name: f"--emulators {chosen} does not name {name}" for name in KINDS if name not in self.emulators
        }

    def fit(self, data: DatasetInfo) -> None:
        from lola.workflows.fitting import field_windows, fit_training, latent_windows
        from lola.workflows.model_shape import ModelShape, latent_grid

        codec = self.autoencoder.replace(latent_channels=max(self.latent_channels))
        ModelShape.of_autoencoder(codec, data).fit("autoencoder")
        candidates = find_candidates(self)
        spans = [self._span(one.model, one.option, data.steps) for one in candidates]
        latent = latent_grid(codec, data.grid)
        self._fit_evaluations(data, latent)
        item = np.dtype(self.cache.dtype).itemsize
        for one in candidates:
            read = () if one.pixel else (codec.replace(latent_channels=one.most_channels), self.cache)
            ModelShape.of_emulator(one.model, data, self.window, *read).fit(one.option)
        for one, span in zip(candidates, spans, strict=True):
            windows = (
                field_windows(data, span)
                if one.pixel
                else latent_windows(data, latent, one.most_channels, item, span, self.cache.variants)
            )
            with prefix_options(f"{one.training_option}."):
                fit_training(one.training, windows, one.model.training_states(self.window))
        with prefix_options("autoencoder_training."):
            fit_training(self.autoencoder_training, field_windows(data, 1), 1)

    def _span(self, model: EmulatorConfig, option: str, steps: int) -> int:
        """The steps that a training sample of an emulator spans, of trajectories of so many."""
        stride = self.evaluation.stride
        require(
            not model.strides or stride in model.strides,
            f"--{option}.strides {' '.join(map(str, model.strides))} must include {stride}, the "
            "--evaluation.stride, at which the emulator is validated and rolled out",
        )
        stride = max((stride, *model.strides))
        span = (model.training_states(self.window) - 1) * stride + 1
        given = f"--{option}.strides" if model.strides else "an --evaluation.stride"
        windows = model.rollout_windows
        chained = f"--{option}.rollout-windows {windows} of " if windows > 1 else ""
        require(
            span <= steps,
            f"{chained}a --window of {self.window} states at {given} of {stride} spans {span} steps; "
            f"the trajectories have {steps}",
        )
        return span

    def _fit_evaluations(self, data: DatasetInfo, latent: tuple[int, ...]) -> None:
        steps = data.longest("test")
        with prefix_options("evaluation."):
            self.evaluation.check_steps(steps)
        start, stride = max(self.evaluation.starts), self.evaluation.stride
        for context in self.contexts:
            require(
                start + context * stride < steps,
                f"--contexts {context}: trajectories of {steps} states end before one is left to "
                f"predict after so many from state {start}, {stride} steps apart",
            )
        states = len(range(min(self.evaluation.starts), steps, stride)) - self.evaluation.context
        values = max(self.latent_channels) * math.prod(latent) * states * self.evaluation.members
        require(
            4 * values <= ENSEMBLE_BYTES,
            f"--evaluation.members {self.evaluation.members} take {4 * values / 1e9:.3g} GB of latent "
            f"states; {ENSEMBLE_BYTES / 1e9:g} GB is the most",
        )
        if self.observed is not None:
            with prefix_options("observed."):
                self.observed.check(data.system.channels, data.grid, states, data.system.given)

    def emulator(self, kind: EmulatorKind) -> EmulatorConfig:
        """The latent emulator of a kind: as configured, else as a kind has it, with the solver's network."""
        configured: EmulatorConfig | None = getattr(self, kind.name, None)
        return configured or kind.config(network=self.neural_solver.network)

    def to_json(self) -> dict[str, Any]:
        """The fingerprinted fields, without kinds that were added later and are not chosen."""
        added = {field.name for field in dataclasses.fields(self) if field.metadata.get("added")}
        unused = added & KINDS.keys() - set(self.emulators)
        return {name: value for name, value in super().to_json().items() if name not in unused}

    def guided_evaluation(self) -> EvaluationConfig:
        """The evaluation with the observations of the sweep, if it has any."""
        return self.evaluation.replace(observed=self.observed, guidance=self.guidance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """What a trained stage is: a model, how it was trained, and the windows it was trained on.

    Latent windows are augmented when they are encoded, so that `symmetries` says nothing of them.

    Attributes:
        states: The states of a training sample: those of a window, or of several that follow each other.
    """

    model: AnyAutoencoder | EmulatorConfig
    training: TrainingConfig
    window: int = 1
    stride: int = 1
    symmetries: Symmetries = "plain"

    @property
    def states(self) -> int:
        model = self.model
        return model.training_states(self.window) if isinstance(model, EmulatorConfig) else self.window

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides that training samples draw from, if they do."""
        return self.model.strides if isinstance(self.model, EmulatorConfig) else ()


def check_simulation(system: str, simulation: Simulation | None) -> None:
    """Raise `ConfigError` unless a simulation, if there is one, is of the system."""
    require(
        simulation is None or simulation.system == system,
        f"data of {system} cannot come from a simulation of {simulation and simulation.system}",
    )


def emulator_options(network: TransformerConfig | UNetConfig, **choices: Any) -> dict[str, Any]:
    """The fields of a `SweepConfig` for every kind that has one, with the same network.

    Arguments:
        choices: Options of the objective, for the kinds that have them.
    """
    fields = {field.name for field in dataclasses.fields(SweepConfig)}
    options = {}
    for kind in KINDS.values():
        if kind.name in fields:
            own = {field.name for field in dataclasses.fields(kind.config)}
            chosen = {name: value for name, value in choices.items() if name in own}
            options[kind.name] = kind.config(network=network, **chosen)
    return options
