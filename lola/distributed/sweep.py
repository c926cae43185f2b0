"""The configuration of a sweep, and what it is made of: trials, each a chain of stages."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from lola.autoencoder import AutoencoderConfig
from lola.config import Config, added, how, require
from lola.data.augment import Symmetries
from lola.data.datasets import Datasets
from lola.data.systems import get_system
from lola.diffusion import DiffusionConfig
from lola.distributed.encode import CacheConfig
from lola.evaluation.evaluate import EvaluationConfig
from lola.guidance import GuidanceConfig
from lola.neural_solver import NeuralSolverConfig
from lola.observation import ObservationConfig
from lola.remote import AnyPath
from lola.simulate.systems import Simulation
from lola.storage import Location, Stage
from lola.training.loop import TrainingConfig
from lola.transformer_autoencoder import TransformerAutoencoderConfig

EmulatorModel = DiffusionConfig | NeuralSolverConfig
Statistics = Literal["configured", "computed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig(Config):
    """A sweep over compression rate, model and solver steps for one physical system.

    Arguments:
        system: The physical system.
        simulation: What to simulate where the datasets are missing; with none they must be there.
        latent_channels: Latent channels of the autoencoders; each is a compression rate.
        autoencoder: The autoencoder, but for its latent channels.
        autoencoder_training: How autoencoders are trained.
        cache: What the latent caches hold.
        diffusion: The latent diffusion model, if any.
        neural_solver: The latent neural solver, if any.
        emulator_training: How latent emulators are trained.
        pixel: The pixel-space neural solver, if any.
        pixel_training: How the pixel-space neural solver is trained.
        window: States that an emulator sees at once.
        symmetries: What training on fields is augmented by; `published` turns gravity over as they did.
        solver_steps: Sampler steps at which diffusion models are evaluated.
        contexts: Further contexts that emulators are evaluated at, beside that of `evaluation`.
        evaluation: What is scored.
        observed: What is observed of test trajectories, if diffusion models are also evaluated guided.
        guidance: How they are guided by it, at the most solver steps.
        statistics: Whether fields are standardised by the statistics of their system, which are those of The
            Well's training set, or by those of this training set; a system without any computes them.
        well: The folder of Well datasets, absolute, under the storage root, or a URL.
        include: Only files of datasets whose name contains one of these are used.
        exclude: Files of datasets whose name contains one of these are not used.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
        concurrency: The most trials at once, which a cluster that may grow is asked for together; 0 is as
            many as it has room for, and there one more.
    """

    system: str = "euler"
    simulation: Simulation | None = None
    latent_channels: tuple[int, ...]
    autoencoder: AutoencoderConfig | TransformerAutoencoderConfig
    autoencoder_training: TrainingConfig
    cache: CacheConfig
    diffusion: DiffusionConfig
    neural_solver: NeuralSolverConfig
    emulator_training: TrainingConfig
    pixel: NeuralSolverConfig | None = None
    pixel_training: TrainingConfig
    window: int = 5
    symmetries: Symmetries = "plain"
    solver_steps: tuple[int, ...] = (4, 8, 16)
    contexts: tuple[int, ...] = ()
    evaluation: EvaluationConfig
    observed: ObservationConfig | None = added(None)
    guidance: GuidanceConfig | None = added(None)
    statistics: Statistics = "configured"
    well: str = how("well")
    include: tuple[str, ...] = how(())
    exclude: tuple[str, ...] = how(())
    storage: str | None = how(None)
    concurrency: int = how(0)

    def validate(self) -> None:
        check_simulation(self.system, self.simulation)
        require(bool(self.latent_channels), "a sweep needs at least one number of latent channels")
        require(all(n > 0 for n in self.latent_channels), "latent channels must be positive")
        require(
            len(set(self.latent_channels)) == len(self.latent_channels),
            f"latent channels {self.latent_channels} name a rate twice",
        )
        require(bool(self.solver_steps), "a sweep needs at least one number of solver steps")
        contexts = (self.evaluation.context, *self.contexts)
        require(len(set(contexts)) == len(contexts), f"contexts {contexts} name one twice")
        for context in contexts:
            require(context > 0, f"a context must hold at least one state, not {context}")
            require(
                context < self.window,
                f"a context of {context} states leaves nothing of a window of {self.window}",
            )
        require(
            self.evaluation.overlap < self.window,
            f"an overlap of {self.evaluation.overlap} states leaves nothing of a window of {self.window}",
        )
        require(self.evaluation.split == "test", "a sweep is scored on the test split")
        require(
            self.evaluation.guidance is None,
            "the observations of a sweep are its own, beside evaluations without any",
        )
        self.guided()

    def guided(self) -> EvaluationConfig:
        """The evaluation with the observations of the sweep, if it has any."""
        return self.evaluation.replace(observed=self.observed, guidance=self.guidance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """What a trained stage is: a model, how it was trained, and the windows it was trained on.

    Latent windows are augmented when they are encoded, so that `symmetries` says nothing of them.
    """

    model: AutoencoderConfig | TransformerAutoencoderConfig | DiffusionConfig | NeuralSolverConfig
    training: TrainingConfig
    window: int = 1
    stride: int = 1
    symmetries: Symmetries = "plain"


def check_simulation(system: str, simulation: Simulation | None) -> None:
    """Raise `ConfigError` unless the system is known, and what is simulated if anything."""
    get_system(system)
    require(
        simulation is None or simulation.system == system,
        f"data of {system} cannot come from a simulation of {simulation and simulation.system}",
    )


def kind_of(model: EmulatorModel) -> str:
    """The name of a kind of emulator in tables and folders."""
    return "diffusion" if isinstance(model, DiffusionConfig) else "neural_solver"


@dataclasses.dataclass(frozen=True)
class Reads:
    """A dataset that a stage reads, for the tracking server.

    Arguments:
        name: Its name for people; the folder's of a latent cache.
        digest: Its fingerprint.
        context: What it is read for.
        source: Where it is.
    """

    name: str
    digest: str
    context: Literal["training", "encoding", "evaluation"]
    source: Location | AnyPath

    @classmethod
    def of_well(cls, stage: Stage, datasets: Datasets, context: Literal["training", "encoding"]) -> "Reads":
        """The simulations that a stage has for an input."""
        return cls(stage.system, stage.inputs["dataset"], context, datasets.root)

    @classmethod
    def of_cache(cls, cache: Stage) -> "Reads":
        """A latent cache that emulators are trained on."""
        return cls(cache.name, cache.fingerprint, "training", cache.folder)


@dataclasses.dataclass(frozen=True)
class Step:
    """One stage of a trial, and what makes it.

    Arguments:
        stage: Where the results go.
        run: Makes the stage.
        tags: What the run is, for the tracking server.
        total: The last step that its progress reports.
        register: Whether weights are registered as a model that others may look for.
        reads: The datasets that it reads.
    """

    stage: Stage
    run: Callable[[], None]
    tags: dict[str, Any]
    total: int
    register: bool = True
    reads: tuple[Reads, ...] = ()

    @property
    def title(self) -> str:
        """A name for people, which tells a model from its evaluation."""
        return f"evaluation {self.stage.what}" if self.stage.kind == "evaluations" else self.stage.what


@dataclasses.dataclass(frozen=True)
class Trial:
    """Stages made one after the other; `cpus` and `gpus` are what they take at any moment."""

    name: str
    steps: tuple[Step, ...]
    needs: tuple[Stage, ...] = ()
    cpus: float = 1
    gpus: float = 0

    @property
    def finished(self) -> bool:
        """Whether every stage is."""
        return all(step.stage.finished for step in self.steps)

    @property
    def ready(self) -> bool:
        """Whether everything that the trial needs is finished."""
        return all(stage.finished for stage in self.needs)
