r"""Estimates of what every stage of a plan takes, from sizes alone or from finished stages that are alike.

A step of training takes the seconds that were measured where a finished stage trained the same model on the
same data, in batches of the same size and precision, with as many workers of the cluster's kind; else those
of `training/cost.py`. With `F` the operations of a training step per sample, of which the forward pass is a
third and, of an autoencoder, each half a sixth, and `u p` the rate that a device reaches,

    encoding      F / (6 u p)                                     per state and variant
    evaluation    (M W S F_emulator / 3 + M L F_autoencoder / 6) / (u p)    per trajectory

with `M` members, `W` windows of `S` network evaluations each, and `L` states decoded; guidance adds gradients
through network and decoder to every network evaluation. Evaluation on CPUs takes the seconds per state that
an evaluation like it measured, if there is one.

Every stage starts processes as well, and simulations and the report come before and after (`overheads`).
"""

import functools
import math
import statistics
from collections.abc import Mapping
from typing import Any

from lola.core.config import prefix_options
from lola.core.errors import ConfigError
from lola.core.waiting import Log, describe_progress, progress_reminder
from lola.distributed.jobs.blocks import ENCODER_CPUS
from lola.distributed.jobs.compute_statistics import StatisticsConfig
from lola.distributed.trials import Step
from lola.emulation.cache_config import CacheConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.rows import stored_bytes
from lola.models.autoencoder_config import CodecConfig
from lola.storage.integrity import listed_sizes
from lola.storage.stages import Kind, Stage
from lola.training.cost import estimate_cost
from lola.training.hardware import Hardware
from lola.training.peak import GPUS, processor
from lola.training.precision import Precision
from lola.training.throughput import Throughput
from lola.workflows.base_plan import BasePlan
from lola.workflows.dataset_info import FLOAT
from lola.workflows.forecast.cluster import ClusterConfig
from lola.workflows.forecast.forecast import Forecast, ModelCost, Source, StageCost
from lola.workflows.forecast.measured import MeasuredSpeeds
from lola.workflows.forecast.overheads import (
    ENCODING_S,
    EVALUATION_S,
    REPORT_S,
    TRAINING_S,
    WORKERS_S,
    simulation_seconds,
)
from lola.workflows.forecast.utilisation import Network, utilisation
from lola.workflows.model_shape import ModelShape, latent_grid
from lola.workflows.sweep import Recipe
from lola.workflows.wall_clock import Find, TimedTraining

COPIES = 2  # of an evaluation's numbers, which do not compress: in a part's tables and in the joined ones
SHOWN = 2  # members whose states an evaluation keeps of its first trajectory
GUIDED = 3  # forward passes that an observation, or an iteration of its solver, costs: one and its gradient
KEPT = 2  # checkpoints that a training keeps


def forecast(plan: BasePlan, cluster: ClusterConfig, cores: int, log: Log = print) -> Forecast:
    """What a plan will take.

    Arguments:
        plan: The plan; its finished stages cost nothing, and others of its storage root are measured by.
        cores: CPU cores of this machine.
        log: Called every few seconds with what is being counted.

    Raises:
        ConfigError: A stage does not fit the cluster.
    """
    capacity = cluster.capacity(cores)
    estimator = _Estimator(plan, cluster, capacity)
    trials = plan.trials
    total = sum(len(trial.steps) for trial in trials)

    def describe() -> str:
        return f"estimated {describe_progress(len(estimator.costs), total, 'stages', reminder.elapsed)}"

    reminder = progress_reminder(describe, log)
    for trial in trials:
        needs = [stage.fingerprint for stage in trial.needs]
        for step in trial.steps:
            estimator.add(step, needs)
            needs.append(step.stage.fingerprint)
            reminder.poll()
    simulating = 0.0 if plan.data.exists else simulation_seconds(plan.config.simulation, capacity)
    return Forecast(
        stages=tuple(estimator.costs.values()),
        capacity=capacity,
        cluster=cluster,
        models=tuple(estimator.models.values()),
        simulating=simulating,
        reporting=REPORT_S if plan.reported else 0.0,
    )


def estimated_throughput(cluster: ClusterConfig) -> Find:
    """Throughputs of trainings on a cluster by `training/cost.py`, of which none was measured."""
    devices = _Devices(cluster)

    def find(timed: TimedTraining, copies: int) -> Throughput:
        hardware, _ = devices.of(timed.training.gpus, timed.training.cpus, _network(timed.shape))
        counts = timed.shape.counts(timed.training.precision)
        return Throughput(
            step=estimate_cost(counts, timed.training, timed.shape.sample_bytes, hardware).seconds
        )

    return find


def _network(shape: ModelShape) -> Network:
    return "autoencoder" if isinstance(shape.model, CodecConfig) else "emulator"


class _Devices:
    """What the workers of a cluster compute on."""

    def __init__(self, cluster: ClusterConfig) -> None:
        self.cluster, self.gpu = cluster, GPUS[cluster.kind]
        self.utilisation = utilisation(cluster)

    @functools.cached_property
    def core(self) -> Hardware:
        return processor(1)

    def of(
        self, gpus: float, cpus: float, network: Network = "emulator"
    ) -> tuple[Hardware, dict[str, float]]:
        """What a worker computes a network on, and the resources that it occupies."""
        if gpus and not self.cluster.gpus:
            raise ConfigError(
                f"a worker takes {gpus:g} {'GPU' if gpus == 1 else 'GPUs'}, and the cluster has none; "
                "plan for some with --cluster.gpus, or train without: the options that end in .gpus"
            )
        base, share = (self.gpu, min(1.0, gpus)) if gpus else (self.core, cpus)
        if gpus:
            base = base.replace(memory=share * base.memory, bandwidth=share * base.bandwidth)
        hardware = base.replace(
            float32=share * base.float32,
            bfloat16=share * base.bfloat16,
            utilisation=self.utilisation.of(network),
        )
        return hardware, {"cpu": cpus} | ({"gpu": gpus} if gpus else {})


class _Estimator:
    """Estimates the stages of a plan one by one, each after those that it needs."""

    def __init__(self, plan: BasePlan, cluster: ClusterConfig, capacity: Mapping[str, float]) -> None:
        self.data, self.cluster, self.capacity = plan.data, cluster, capacity
        self.measured, self.clock = MeasuredSpeeds(plan.root, plan.data.fingerprint), plan.clock
        self.devices = _Devices(cluster)
        # By the stages' fingerprints:
        self.costs: dict[str, StageCost] = {}
        self.models: dict[str, ModelCost] = {}
        self.stages: dict[str, Stage] = {}
        self.shapes: dict[str, ModelShape] = {}
        self.operations: dict[str, float] = {}  # of training on a sample

    def add(self, step: Step, needs: list[str]) -> None:
        """Estimate a stage, whose needs are the fingerprints of others."""
        stage, config = step.stage, step.stage.config
        common: dict[str, Any] = {
            "name": step.title,
            "needs": tuple(self.costs[need].name for need in needs if need in self.costs),
        }
        if isinstance(config, Recipe):
            cost = self._training(stage, config, common)
        elif isinstance(config, CacheConfig):
            cost = self._encoding(stage, config, common)
        elif isinstance(config, EvaluationConfig):
            cost = self._evaluation(stage, config, common)
        else:
            assert isinstance(config, StatisticsConfig)
            read = self.data.bytes()
            cost = StageCost(**common, seconds=ENCODING_S, resources={"cpu": 1}, read=read)
        if self.data.exists and stage.finished:
            manifest = stage.manifest()
            cost = StageCost(
                **common,
                source="finished",
                resources=cost.resources,
                stored=sum(listed_sizes(manifest).values()),
                took=manifest.get("seconds"),
            )
        self.costs[stage.fingerprint], self.stages[stage.fingerprint] = cost, stage

    def _shape(self, kind: Kind, fingerprint: str, grid: tuple[int, ...]) -> ModelShape:
        """The model of a stage of the plan, else of a finished one that it reads."""
        if fingerprint not in self.shapes:
            manifest = self.measured.manifest(kind, fingerprint)
            shape = ModelShape.of_manifest(manifest, grid, self.data.parameters)
            self.shapes[fingerprint] = shape
            self.operations[fingerprint] = shape.counts().flops.per_sample
        return self.shapes[fingerprint]

    def _training(self, stage: Stage, recipe: Recipe, common: dict[str, Any]) -> StageCost:
        training, cache = recipe.training, self.stages.get(stage.inputs.get("latents", ""))
        if isinstance(recipe.model, CodecConfig):
            shape = ModelShape.of_autoencoder(recipe.model, self.data)
        elif cache is None:
            shape = ModelShape.of_emulator(recipe.model, self.data, recipe.window)
        else:
            codec, config = self.shapes[cache.inputs["autoencoder"]].model, cache.config
            assert isinstance(config, CacheConfig)
            shape = ModelShape.of_emulator(recipe.model, self.data, recipe.window, codec, config)
        hardware, resources = self.devices.of(training.gpus, training.cpus, _network(shape))
        counts = shape.counts(training.precision)
        self.shapes[stage.fingerprint], self.operations[stage.fingerprint] = shape, counts.flops.per_sample
        cost = estimate_cost(counts, training, shape.sample_bytes, hardware)
        measured = self.measured.step(shape, training, self.cluster.kind if training.gpus else "cpu")
        source: Source = "measured" if measured else "peak"
        seconds = measured or cost.seconds
        recorded = False
        if training.minutes is not None:
            source, seconds = "minutes", 60 * training.minutes / training.steps
            recorded = self.clock.is_recorded(training, shape)
        self.models[stage.fingerprint] = ModelCost(common["name"], shape, training, cost, seconds, recorded)
        weights = FLOAT * cost.parameters * (2 if training.ema else 1)
        read = training.steps * training.batch_size * shape.sample_bytes / shape.states[1]
        whole = self.data.bytes("train") if cache is None else self._cache_bytes(cache, "train")
        if whole <= training.order.memory * 1e9 / 2:  # it stays in memory once it has been read
            read = min(whole, read)
        return StageCost(
            **common,
            source=source,
            seconds=(TRAINING_S if training.most_workers == 1 else WORKERS_S) + training.steps * seconds,
            resources={name: training.most_workers * each for name, each in resources.items()},
            stored=2 * weights,  # the stage's, and MLflow's copy
            read=read,
            scratch=(KEPT + 1) * (cost.memory.optimizer + weights),
        )

    def _cache_bytes(self, cache: Stage, *splits: str) -> float:
        """Bytes of some splits of a latent cache, of all by default."""
        config, codec = cache.config, self.shapes[cache.inputs["autoencoder"]].model
        assert isinstance(config, CacheConfig)
        cells = codec.latent_channels * math.prod(latent_grid(codec, self.data.grid))
        return self._encoded(config, *splits) * cells * (2 if config.dtype == "float16" else FLOAT)

    def _encoded(self, config: CacheConfig, *splits: str) -> float:
        """States that a cache holds of some splits, of all by default, variants included."""
        variants = {"train": config.variants}
        names = splits or self.data.trajectories
        return sum(self.data.states(name) * variants.get(name, 1) for name in names)

    def _encoding(self, stage: Stage, config: CacheConfig, common: dict[str, Any]) -> StageCost:
        cpus = ENCODER_CPUS if config.gpus else 1
        hardware, resources = self.devices.of(config.gpus, cpus, "autoencoder")
        rate = hardware.utilisation * hardware.peak_flops(config.precision)
        measured = None if config.gpus else self.measured.encoding(stage.what)
        seconds = measured or self.operations[stage.inputs["autoencoder"]] / 6 / rate
        return StageCost(
            **common,
            source="measured" if measured else "peak",
            seconds=ENCODING_S + self._encoded(config) * seconds / config.actors,
            parts=config.actors,
            resources=resources,
            stored=self._cache_bytes(stage),
            read=self.data.bytes(),
        )

    def _evaluation(self, stage: Stage, config: EvaluationConfig, common: dict[str, Any]) -> StageCost:
        with prefix_options("evaluation."):
            config.check_steps(self.data.longest(config.split))
        lengths = self.data.lengths_of(config.split)
        steps = [
            statistics.fmean(config.states(length, start) for length in lengths) for start in config.starts
        ]
        leads = [
            statistics.fmean(max(0, config.states(length, start) - config.context) for length in lengths)
            for start in config.starts
        ]
        trajectories = min(config.trajectories, self.data.trajectories[config.split])
        members = config.members if config.random else 1
        emulation, decoding = (members * operations for operations in self._rollout(stage, config, leads))
        automatic = float(bool(self.cluster.gpus and emulation + decoding))
        gpus = automatic if config.gpus < 0 else config.gpus
        hardware, resources = self.devices.of(gpus, 1)
        precisions: dict[Network, Precision] = {"emulator": config.precision, "autoencoder": "float32"}
        share = self.devices.utilisation.of
        rates = [share(name) * hardware.peak_flops(precision) for name, precision in precisions.items()]
        measured = 0.0 if gpus else self._measured(stage, config, leads, rates) * members * sum(leads)
        available = self.capacity["gpu"] / gpus if gpus else self.capacity["cpu"]
        parts = max(1, min(trajectories, int(available)))
        targets = 2 if {"autoencoder", "emulator"} <= stage.inputs.keys() else 1
        pictures = min(members, SHOWN) + (2 if members > 1 else 0)  # with the mean and the deviation
        state = self.data.state_bytes
        table = stored_bytes(self.data.system.channels, self.data.grid, members)
        scores = COPIES * targets * table * trajectories * sum(leads)
        source: Source = "measured" if measured else "peak"
        return StageCost(
            **common,
            source=source,
            seconds=EVALUATION_S
            + math.ceil(trajectories / parts) * (measured or emulation / rates[0] + decoding / rates[1]),
            parts=parts,
            resources=resources,
            stored=scores + 2 * pictures * leads[0] * state,
            read=trajectories * sum(steps) * state,
        )

    def _measured(
        self, stage: Stage, config: EvaluationConfig, leads: list[float], rates: list[float]
    ) -> float:
        """Measured seconds per state and member on CPUs; 0 if there are none.

        Those of a guided evaluation may follow from the same one without guidance, by the operations of both.
        """
        seconds, unguided = self.measured.evaluation(stage.what), stage.what.removesuffix("-guided")
        if seconds or unguided == stage.what:
            return seconds
        plain = config.replace(guidance=None, observed=None)
        guided, base = (
            sum(each / rate for each, rate in zip(self._rollout(stage, one, leads), rates, strict=True))
            for one in (config, plain)
        )
        return self.measured.evaluation(unguided) * guided / base

    def _rollout(self, stage: Stage, config: EvaluationConfig, leads: list[float]) -> tuple[float, float]:
        """Operations of the emulator's network and of the decoder, for a member from all start states."""
        grid, decoding, emulation = self.data.grid, 0.0, 0.0
        codec, emulator = stage.inputs.get("autoencoder"), stage.inputs.get("emulator")
        if codec is not None:
            grid = latent_grid(self._shape("autoencoders", codec, grid).model, grid)
            decoding = self.operations[codec] / 6
        decoded = decoding * sum(leads)
        if emulator is not None:
            shape = self._shape("emulators", emulator, grid)
            window = shape.sizes["window"]
            first, more = window - config.context, window - config.overlap
            windows = sum(1 + max(0, math.ceil((lead - first) / more)) for lead in leads)
            evaluations = windows * (config.sampler.steps if config.sampler else 1)
            iterations = config.guidance.options.get("iterations", 0) if config.guidance else 0
            guided = GUIDED * (1 + iterations) if config.guidance else 0
            forward = self.operations[emulator] / shape.model.training_passes
            emulation = evaluations * forward * (1 + guided)
            decoded += evaluations * decoding * guided * window
        return emulation, decoded
