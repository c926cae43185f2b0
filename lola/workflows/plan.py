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
from collections.abc import Iterable, Iterator
from typing import Any, cast

from lola.core.config import Config, fingerprint
from lola.data.systems import System
from lola.data.well.datasets import Datasets
from lola.distributed.jobs.compute_statistics import compute_statistics, statistics_stage
from lola.distributed.jobs.encode import encode
from lola.distributed.jobs.evaluate import evaluation_step
from lola.distributed.jobs.train import TrainingRun, run_training
from lola.distributed.trials import InputDataset, Step, Trial
from lola.emulation.cache_config import CacheConfig
from lola.emulation.inference_config import Weights
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.rows import model_key
from lola.models.autoencoder_config import CodecConfig
from lola.models.emulator_config import EmulatorConfig
from lola.models.kinds import KINDS, require_kind
from lola.storage.remote import AnyPath
from lola.storage.stages import Kind, Location, Stage
from lola.training.config import TrainingConfig
from lola.workflows.base_plan import BasePlan, stage_tags
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.model_shape import ModelShape
from lola.workflows.setups import field_setup, latent_setup
from lola.workflows.sweep import Recipe, SweepConfig
from lola.workflows.warm_start import Source


class SweepPlan(BasePlan[SweepConfig]):
    """All trials of a sweep."""

    title = "sweep"

    def __init__(
        self, config: SweepConfig, root: AnyPath, well: Location, data: DatasetInfo | None = None
    ) -> None:
        super().__init__(config, root, well, data)
        self.first: tuple[Stage, ...] = ()  # what all that reads fields needs
        if config.statistics == "computed" or not self.system.mean:
            self.first = (statistics_stage(root, self.system, self._split("train")),)
            self.datasets = dataclasses.replace(self.datasets, statistics=self.first[0].folder)
        self._goal: tuple[Stage, ...] = ()
        self._found: dict[tuple[str, str], Source] = {}

    @property
    def fingerprint(self) -> str:
        config = self.config.replace(system=self.system.name)
        return fingerprint(config, self.data.fingerprint, *(stage.fingerprint for stage in self._goal))

    def towards(self, *goal: Stage) -> "SweepPlan":
        """The part of the plan that makes some stages: no trial and no step that they do not need."""
        part = copy.copy(self)
        part._goal, part.reported = goal, False
        part.trials = _needed(self.trials, goal)
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
            *(self._emulation(model, n) for model, n in self.emulators),
            *self.evaluations,
        )

    @property
    def emulators(self) -> Iterator[tuple[EmulatorConfig, int | None]]:
        """The emulators, each with its latent channels, or None in pixel space, which is first."""
        if self.config.pixel is not None:
            yield self.config.pixel, None
        for n in self.config.latent_channels:
            for _, model in self.config.latent_emulators:
                yield model, n

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
        recipe = Recipe(
            model=self.config.autoencoder.replace(latent_channels=n, warm_start=None),
            training=self.config.autoencoder_training,
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

    def emulator(self, model: EmulatorConfig, n: int | None) -> Stage:
        """The stage of an emulator, in latent space or (`n` None) in pixel space."""
        source = self._source(model, n)
        recipe = Recipe(
            model=model.replace(warm_start=None),  # the stage is an input, whatever its name
            training=self.config.pixel_training if n is None else self.config.emulator_training,
            window=self.config.window,
            stride=self.config.evaluation.stride,
            symmetries=self.config.symmetries if n is None else "plain",
        )
        inputs: dict[str, Stage | Source] = {} if n is None else {"latents": self.cache(n)}
        inputs |= {} if source is None else {"warm_start": source}
        return self._stage("emulators", f"{require_kind(model).name}-{self.rate(n)}", recipe, **inputs)

    def _source(self, model: EmulatorConfig, n: int | None) -> Source | None:
        """The stage that an emulator starts from, if any: of the kind that it names, or a finished one."""
        name = model.warm_start
        if name is None:
            return None
        option = "pixel" if n is None else require_kind(model).option
        if name in KINDS and n is not None:
            other = self.config.emulator(KINDS[name])
            stage, sizes = self.emulator(other, n), self._shape(other, n).sizes
            return Source(option, stage.folder, stage.fingerprint, other, sizes, stage)
        if (option, name) not in self._found:
            self._found[option, name] = Source.find(self.root, name, "emulators", option)
        return self._found[option, name]

    def _shape(self, model: EmulatorConfig, n: int | None) -> ModelShape:
        """An emulator's model on latent states, or (`n` None) on fields."""
        if n is None:
            return ModelShape.of_emulator(model, self.data, self.config.window)
        codec = self.config.autoencoder.replace(latent_channels=n)
        return ModelShape.of_emulator(model, self.data, self.config.window, codec, self.config.cache)

    def evaluation(
        self,
        subject: str,
        n: int | None,
        model: EmulatorConfig | None = None,
        solver_steps: int | None = None,
        weights: Weights = "raw",
        guided: bool = False,
        context: int | None = None,
    ) -> Stage:
        """The stage of an evaluation, of weights or their average, guided or not, at a further context."""
        what = f"{model_key(subject, weights)}-{self.rate(n)}" + (f"-s{solver_steps}" if solver_steps else "")
        what += ("-guided" if guided else "") + (f"-k{context}" if context else "")
        inputs = {} if n is None else {"autoencoder": self.autoencoder(n)}
        if model is not None:
            inputs["emulator"] = self.emulator(model, n)
        config = self._scoring(subject, model, solver_steps, guided).replace(weights=weights)
        config = config.replace(context=context) if context else config
        return self._stage("evaluations", what, config, **inputs)

    def _scoring(
        self, subject: str, model: EmulatorConfig | None, solver_steps: int | None, guided: bool
    ) -> EvaluationConfig:
        config = self.config.guided_evaluation() if guided else self.config.evaluation
        if solver_steps is not None:
            assert config.sampler is not None
            return config.replace(sampler=config.sampler.replace(steps=solver_steps), stochastic=False)
        baselines = {name: name for name in ("autoencoder", "persistence", "climatology")}
        known = (baselines | {"autoencoded_persistence": "persistence"}).get(subject, "emulator")
        precision = config.precision if known == "emulator" else "float32"
        stochastic = model is not None and require_kind(model).stochastic
        return config.replace(sampler=None, subject=known, precision=precision, stochastic=stochastic)

    def _statistics(self, stage: Stage) -> Trial:
        compute = functools.partial(compute_statistics, stage, self.system, self.datasets)
        reads = InputDataset(
            f"{self.system.name}/train", self._split("train"), "training", self.datasets.root
        )
        tags = self._tags("statistics", "statistics", None)
        return Trial("statistics", (Step(stage, compute, tags, 1, reads=(reads,)),))

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

    def _emulation(self, model: EmulatorConfig, n: int | None) -> Trial:
        stage = self.emulator(model, n)
        recipe, kind = cast(Recipe, stage.config), require_kind(model)
        sizes, source = self._shape(model, n).sizes, self._source(model, n)
        start = None if source is None else source.folder
        if n is None:
            setup = functools.partial(field_setup, recipe, self.datasets, self.system, sizes, start)
            reads, needs = InputDataset.of_well(stage, self.datasets, "training"), self.first
        else:
            cache = self.cache(n)
            setup = functools.partial(latent_setup, recipe, cache.folder, sizes, start)
            reads = InputDataset(cache.name, cache.fingerprint, "training", cache.folder)
            needs = (self.autoencoder(n), cache)
        if source is not None:
            source.check(model, sizes)
            needs += () if source.stage is None else (source.stage,)
        details: dict[str, Any] = {"autoencoder": None if n is None else self.autoencoder(n).name}
        details |= started_from(source) | recorded(self.system)
        run = TrainingRun(stage, recipe.training, setup, recipe.model, sizes, details)
        tags = self._tags("emulator", kind.name, n)
        step = Step(stage, functools.partial(run_training, run), tags, recipe.training.steps, reads=(reads,))
        return training_trial(f"{kind.name} {self.rate(n)}", recipe.training, step, needs=needs)

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
            for model, n in self.emulators:
                kind = require_kind(model)
                training = config.pixel_training if n is None else config.emulator_training
                for weights in weights_of(training):
                    for steps in config.solver_steps if kind.sampler_steps else (None,):
                        yield self._evaluate(kind.name, n, model, steps, weights, context=context)
        for model, n in self.emulators if config.guidance is not None else ():
            kind = require_kind(model)
            if kind.sampler_steps and n is not None:
                yield self._evaluate(kind.name, n, model, max(config.solver_steps), guided=True)

    def _evaluate(
        self,
        subject: str,
        n: int | None,
        model: EmulatorConfig | None = None,
        steps: int | None = None,
        weights: Weights = "raw",
        **options: Any,
    ) -> Trial:
        stage = self.evaluation(subject, n, model, steps, weights, **options)
        subject = model_key(subject, weights)
        autoencoder = None if n is None else self.autoencoder(n)
        emulator = None if model is None else self.emulator(model, n)
        training = self.config.pixel_training if n is None else self.config.emulator_training
        step = evaluation_step(
            stage,
            self.system,
            self.datasets,
            dataset=self._split("test"),
            trajectories=self.data.trajectories["test"],
            model=subject,
            compression=None if n is None else self.compression(n),
            training_seed=training.seed,
            autoencoder=autoencoder.folder if autoencoder else None,
            emulator=emulator.folder if emulator else None,
        )
        needs = self.first + tuple(stage for stage in (autoencoder, emulator) if stage is not None)
        return Trial(f"evaluation {stage.what}", (step,), needs)


def cache_step(stage: Stage, model: AnyPath, datasets: Datasets, tags: dict[str, Any], files: int) -> Step:
    """The encoding of a latent cache, whose stage is configured by a `CacheConfig`, of simulation files."""
    assert isinstance(stage.config, CacheConfig)
    run = functools.partial(encode, stage, model, datasets, stage.config)
    return Step(stage, run, tags, files, reads=(InputDataset.of_well(stage, datasets, "encoding"),))


def autoencoder_step(
    stage: Stage,
    data: DatasetInfo,
    datasets: Datasets,
    tags: dict[str, Any],
    source: Source | None = None,
) -> Step:
    """The training of an autoencoder, whose stage is configured by a `Recipe`, perhaps from a source."""
    recipe = cast(Recipe, stage.config)
    shape = ModelShape.of_autoencoder(cast(CodecConfig, recipe.model), data)
    if source is not None:
        source.check(recipe.model, shape.sizes)
    start = None if source is None else source.folder
    setup = functools.partial(field_setup, recipe, datasets, data.system, shape.sizes, start)
    details = recorded(data.system) | started_from(source)
    run = TrainingRun(stage, recipe.training, setup, recipe.model, shape.sizes, details)
    reads = (InputDataset.of_well(stage, datasets, "training"),)
    return Step(stage, functools.partial(run_training, run), tags, recipe.training.steps, reads=reads)


def recorded(system: System) -> dict[str, Any]:
    """What the manifest of a model says of a system for which its name does not stand."""
    return {"data": system.to_json()} if system.described else {}


def started_from(source: Source | None) -> dict[str, Any]:
    """What the manifest of a model says of the stage that it started from."""
    return {} if source is None else {"warm_start": source.folder.name}


def training_trial(name: str, training: TrainingConfig, *steps: Step, needs: tuple[Stage, ...] = ()) -> Trial:
    """A trial that occupies the resources of all workers of a training."""
    workers = training.most_workers
    return Trial(name, steps, needs, cpus=training.cpus * workers, gpus=training.gpus * workers)


def weights_of(training: TrainingConfig) -> tuple[Weights, ...]:
    """Which weights of a model are evaluated."""
    return ("raw", "ema") if training.ema else ("raw",)


def _needed(trials: tuple[Trial, ...], goal: Iterable[Stage]) -> tuple[Trial, ...]:
    """The trials that lead to some stages, each up to the last step that is needed."""
    wanted = {stage.fingerprint for stage in goal}
    kept: list[Trial] = []
    for trial in reversed(trials):
        steps = list(trial.steps)
        while steps and steps[-1].stage.fingerprint not in wanted:
            steps.pop()
        if steps:
            kept.insert(0, dataclasses.replace(trial, steps=tuple(steps)))
            wanted |= {stage.fingerprint for stage in trial.needs}
    return tuple(kept)
