"""The plan of a sweep: which stages there are, what each needs, and what each does.

    dataset -> autoencoder -> latent cache -> emulators of every kind -> evaluation (per solver steps)
    dataset -> pixel-space emulator --------------------------------> evaluation
    dataset -> persistence -----------------------------------------> evaluation

Fingerprints depend on configurations and inputs alone, so that the whole plan is known before anything runs.
A trial needs only stages of trials before it.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, cast

from lola.core.config import Config, fingerprint
from lola.core.errors import ConfigError
from lola.data.systems import SPLITS
from lola.distributed.jobs.compute_statistics import StatisticsStage, compute_statistics, statistics_stage
from lola.distributed.jobs.evaluate import evaluation_step
from lola.distributed.jobs.train import run_training
from lola.distributed.jobs.worker import TrainingRun
from lola.distributed.trials import InputDataset, Step, Trial
from lola.emulation.inference_config import Weights
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.rows import model_key
from lola.storage.remote import AnyPath
from lola.storage.stages import Kind, Location, Stage
from lola.workflows.arms import PlannedEmulator, plan_emulators
from lola.workflows.base_plan import BasePlan, stage_tags
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.model_shape import ModelShape
from lola.workflows.setups import field_setup, latent_setup
from lola.workflows.steps import (
    autoencoder_step,
    cache_step,
    needed_trials,
    recorded,
    started_from,
    training_trial,
    weights_of,
)
from lola.workflows.sweep import Recipe, SweepConfig
from lola.workflows.warm_start import Source


class SweepPlan(BasePlan[SweepConfig]):
    """All trials of a sweep."""

    title = "sweep"

    def __init__(
        self, config: SweepConfig, root: AnyPath, well: Location, data: DatasetInfo | None = None
    ) -> None:
        super().__init__(config, root, well, data)
        self.first: tuple[StatisticsStage, ...] = ()  # what all that reads fields needs
        if config.statistics == "computed" or not self.system.mean:
            others = {name: self._split(name) for name in SPLITS[1:]}
            self.first = (statistics_stage(root, self.system, self._split("train"), others=others),)
            self.datasets = dataclasses.replace(self.datasets, statistics=self.first[0].folder)
        self._goal: tuple[Stage, ...] = ()
        self._found: dict[tuple[str, str], Source] = {}

    @property
    def fingerprint(self) -> str:
        config = self.config.replace(system=self.system.name)
        return fingerprint(
            config, self.data.fingerprint, *(stage.fingerprint for stage in self._goal), *self.timed
        )

    def towards(self, *goal: Stage) -> "SweepPlan":
        """The part of the plan that makes some stages: no trial and no step that they do not need."""
        part = copy.copy(self)
        part._goal, part.reported = goal, False
        part.trials = needed_trials(self.trials, goal)
        return part

    def _split(self, name: str) -> str:
        """The fingerprint of a split; empty while its files do not exist."""
        return self.data.fingerprints.get(name, "")

    @functools.cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All trials: autoencoders and the pixel-space emulator, latent emulators, evaluations."""
        config = self.config
        return (
            *map(self._statistics, self.first),
            *map(self._compression, config.latent_channels),
            *map(self._emulation, self.emulators),
            *self.evaluations,
        )

    @functools.cached_property
    def emulators(self) -> tuple[PlannedEmulator, ...]:
        """The emulators, pixel space first, each after the one that it starts from."""
        return tuple(plan_emulators(self.config))

    def planned(self, name: str, n: int | None, seed: int | None = None) -> PlannedEmulator:
        """The emulator of a kind or an arm, in latent space or (`n` None) in pixel space.

        Arguments:
            seed: Its training seed; by default the first of those that it is trained with.

        Raises:
            ConfigError: There is none.
        """
        for one in self.emulators:
            if (one.name, one.latent_channels) == (name, n) and seed in (None, one.seed):
                return one
        with_seed = "" if seed is None else f" with seed {seed}"
        raise ConfigError(f"the sweep has no emulator {name} of {self.rate(n)}{with_seed}")

    @functools.cached_property
    def evaluations(self) -> tuple[Trial, ...]:
        return tuple(self._evaluations())

    def rate(self, latent_channels: int | None) -> str:
        """The name of a space: `f16c64`, or `pixel`."""
        if latent_channels is None:
            return "pixel"
        return f"{self.config.autoencoder.rate(self.system.dimensions)}c{latent_channels}"

    def compression(self, latent_channels: int | None) -> float:
        """numel(x) / numel(z)."""
        if latent_channels is None:
            return 1.0
        config = self.config.autoencoder.replace(latent_channels=latent_channels)
        return config.compression(len(self.system.channels), self.system.dimensions)

    def _stage(self, kind: Kind, what: str, config: Config, **inputs: Stage | Source) -> Stage:
        if self.first:
            inputs["statistics"] = self.first[0]
        fingerprints = {role: stage.fingerprint for role, stage in inputs.items()}
        fingerprints = {"dataset": self.data.fingerprint} | fingerprints
        if kind == "evaluations":
            fingerprints |= self.system.scoring
        return Stage(
            root=self.root, kind=kind, system=self.system.name, what=what, config=config, inputs=fingerprints
        )

    def _tags(self, stage: str, model: str, n: int | None) -> dict[str, Any]:
        rate = None if n is None else self.compression(n)
        return stage_tags(stage, self.system.name, model, rate)

    def autoencoder(self, n: int) -> Stage:
        """The stage of the autoencoder with `n` latent channels."""
        source = self._codec_source
        model = self.config.autoencoder.replace(latent_channels=n, warm_start=None)
        shape = ModelShape.of_autoencoder(model, self.data)
        recipe = Recipe(
            model=model,
            training=self.clock.resolve("autoencoder_training", self.config.autoencoder_training, shape),
            symmetries=self.config.symmetries,
        )
        inputs = {} if source is None else {"warm_start": source}
        return self._stage("autoencoders", f"autoencoder-{self.rate(n)}", recipe, **inputs)

    @functools.cached_property
    def _codec_source(self) -> Source | None:
        """The finished autoencoder that those of this plan start from, if any."""
        name = self.config.autoencoder.warm_start
        return None if name is None else Source.find(self.root, name, "autoencoders", "autoencoder")

    def cache(self, n: int) -> Stage:
        """The stage of the latent cache of that autoencoder."""
        return self._stage(
            "latents", f"latents-{self.rate(n)}", self.config.cache, autoencoder=self.autoencoder(n)
        )

    def emulator(self, one: PlannedEmulator) -> Stage:
        """The stage of an emulator."""
        source, n = self._source(one), one.latent_channels
        recipe = Recipe(
            model=one.model.replace(warm_start=None),  # the stage is an input, whatever its name
            training=self.clock.resolve(one.candidate.training_option, one.training, self._shape(one)),
            window=self.config.window,
            stride=self.config.evaluation.stride,
            symmetries=self.config.symmetries if n is None else "plain",
        )
        inputs: dict[str, Stage | Source] = {} if n is None else {"latents": self.cache(n)}
        inputs |= {} if source is None else {"warm_start": source}
        return self._stage("emulators", f"{one.name}-{self.rate(n)}{one.suffix}", recipe, **inputs)

    def _source(self, one: PlannedEmulator) -> Source | None:
        """The stage that an emulator starts from, if any: of its rate and seed, or a finished one."""
        name, option = one.model.warm_start, one.candidate.option
        if name is None:
            return None
        if (start := one.candidate.source) is not None:
            other = self.planned(start.name, one.latent_channels, one.seed if self.config.seeds else None)
            stage, sizes = self.emulator(other), self._shape(other).sizes
            return Source(option, stage.folder, stage.fingerprint, other.model, sizes, stage)
        if (option, name) not in self._found:
            self._found[option, name] = Source.find(self.root, name, "emulators", option)
        return self._found[option, name]

    def _shape(self, one: PlannedEmulator) -> ModelShape:
        """An emulator's model on latent states or on fields."""
        if one.latent_channels is None:
            return ModelShape.of_emulator(one.model, self.data, self.config.window)
        codec = self.config.autoencoder.replace(latent_channels=one.latent_channels)
        return ModelShape.of_emulator(one.model, self.data, self.config.window, codec, self.config.cache)

    def evaluation(
        self,
        subject: str | PlannedEmulator,
        n: int | None = None,
        solver_steps: int | None = None,
        weights: Weights = "raw",
        guided: bool = False,
        context: int | None = None,
    ) -> Stage:
        """The stage of an evaluation, of weights or their average, guided or not, at a further context.

        Arguments:
            subject: An emulator, or the name of what else is scored.
            n: The latent channels of what else is scored.
        """
        inputs: dict[str, Stage | Source] = {}
        if isinstance(subject, str):
            name, suffix = subject, ""
        else:
            name, n, suffix = subject.name, subject.latent_channels, subject.suffix
            inputs["emulator"] = self.emulator(subject)
        what = f"{model_key(name, weights)}-{self.rate(n)}{suffix}"
        what += f"-s{solver_steps}" if solver_steps else ""
        what += ("-guided" if guided else "") + (f"-k{context}" if context else "")
        if n is not None:
            inputs["autoencoder"] = self.autoencoder(n)
        config = self._scoring(subject, solver_steps, guided).replace(weights=weights)
        config = config.replace(context=context) if context else config
        return self._stage("evaluations", what, config, **inputs)

    def _scoring(
        self, subject: str | PlannedEmulator, solver_steps: int | None, guided: bool
    ) -> EvaluationConfig:
        config = self.config.guided_evaluation() if guided else self.config.evaluation
        if solver_steps is not None:
            assert config.sampler is not None
            sampler = config.sampler.replace(steps=solver_steps)
            if isinstance(subject, PlannedEmulator) and subject.kind.sampler and not guided:
                sampler = SamplerConfig(name=subject.kind.sampler, steps=solver_steps)
            return config.replace(sampler=sampler, stochastic=False)
        if isinstance(subject, str):
            scored = "persistence" if subject == "autoencoded_persistence" else subject
            return config.replace(sampler=None, subject=scored, precision="float32", stochastic=False)
        stochastic = subject.kind.stochastic
        return config.replace(sampler=None, subject="emulator", stochastic=stochastic)

    def _statistics(self, stage: StatisticsStage) -> Trial:
        compute = functools.partial(compute_statistics, stage, self.system, self.datasets)
        reads = InputDataset(
            f"{self.system.name}/train", self._split("train"), "training", self.datasets.root
        )
        tags = self._tags("statistics", "statistics", None)
        return Trial("statistics", (Step(stage, compute, tags, 1, reads=(reads,), keeps_manifest=True),))

    def _compression(self, n: int) -> Trial:
        stage, cache = self.autoencoder(n), self.cache(n)
        training = autoencoder_step(
            stage,
            self.data,
            self.datasets,
            self._tags("autoencoder", "autoencoder", n),
            self._codec_source,
        )
        cached = cache_step(
            cache, stage.folder, self.datasets, self._tags("latents", "autoencoder", n), self.data.files
        )
        steps = (training, cached)
        return training_trial(
            f"autoencoder {self.rate(n)}", self.config.autoencoder_training, *steps, needs=self.first
        )

    def _emulation(self, one: PlannedEmulator) -> Trial:
        stage, n = self.emulator(one), one.latent_channels
        recipe = cast(Recipe, stage.config)
        sizes, source = self._shape(one).sizes, self._source(one)
        start = None if source is None else source.folder
        needs: tuple[Stage, ...]
        if n is None:
            setup = functools.partial(field_setup, recipe, self.datasets, self.system, sizes, start)
            reads, needs = InputDataset.of_well(stage, self.datasets, "training"), self.first
        else:
            cache = self.cache(n)
            setup = functools.partial(latent_setup, recipe, cache.folder, sizes, start)
            reads = InputDataset(cache.name, cache.fingerprint, "training", cache.folder)
            needs = (self.autoencoder(n), cache)
        if source is not None:
            source.check(one.model, sizes)
            needs += () if source.stage is None else (source.stage,)
        details: dict[str, Any] = {"autoencoder": None if n is None else self.autoencoder(n).name}
        details |= started_from(source) | recorded(self.system) | one.candidate.described
        run = TrainingRun(stage, recipe.training, setup, recipe.model, sizes, details)
        tags = self._tags("emulator", one.name, n) | {"training_seed": one.seed}
        step = Step(stage, functools.partial(run_training, run), tags, recipe.training.steps, reads=(reads,))
        return training_trial(f"{one.name} {self.rate(n)}{one.suffix}", recipe.training, step, needs=needs)

    def _evaluations(self) -> Iterator[Trial]:
        config = self.config
        yield self._evaluate("persistence", None)
        yield self._evaluate("climatology", None)
        for channels in config.latent_channels:
            for weights in weights_of(config.autoencoder_training):
                yield self._evaluate("autoencoder", channels, weights=weights)
            yield self._evaluate("autoencoded_persistence", channels)
        # What predicts nothing has one context: further ones are of emulators.
        for context in (None, *config.contexts):
            for one in self.emulators:
                for weights in weights_of(one.training):
                    for steps in config.solver_steps if one.kind.sampler_steps else (None,):
                        yield self._evaluate(one, None, steps, weights, context=context)
        for one in self.emulators if config.guidance is not None else ():
            if one.kind.sampler_steps and one.latent_channels is not None:
                yield self._evaluate(one, None, max(config.solver_steps), guided=True)

    def _evaluate(
        self,
        subject: str | PlannedEmulator,
        n: int | None,
        steps: int | None = None,
        weights: Weights = "raw",
        **options: Any,
    ) -> Trial:
        stage = self.evaluation(subject, n, steps, weights, **options)
        if isinstance(subject, str):
            name, emulator = subject, None
            seed = 0 if n is None else self.config.autoencoder_training.seed
        else:
            name, n, seed = subject.name, subject.latent_channels, subject.seed
            emulator = self.emulator(subject)
        autoencoder = None if n is None else self.autoencoder(n)
        step = evaluation_step(
            stage,
            self.system,
            self.datasets,
            dataset=self._split("test"),
            trajectories=self.data.trajectories["test"],
            model=model_key(name, weights),
            compression=None if n is None else self.compression(n),
            training_seed=seed,
            autoencoder=autoencoder.folder if autoencoder else None,
            emulator=emulator.folder if emulator else None,
        )
        needs = self.first + tuple(stage for stage in (autoencoder, emulator) if stage is not None)
        return Trial(f"evaluation {stage.what}", (step,), needs)
