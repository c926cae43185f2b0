r"""What a sweep will take on a cluster: the time, memory on disk, reads and money of every stage.

A step of training takes the seconds that were measured where a finished stage trained the same model on the
same data, in batches of the same size and precision, with as many workers of the cluster's kind; else those
of `training/cost.py`. With `F` the operations of a training step per sample, of which the forward pass is a
third and, of an autoencoder, each half a sixth, and `u p` the rate that a device reaches,

    encoding      F / (6 u p)                                     per state and variant
    evaluation    (M W S F_emulator / 3 + M L F_autoencoder / 6) / (u p)    per trajectory

with `M` members, `W` windows of `S` network evaluations each, and `L` states decoded; guidance adds gradients
through network and decoder to every network evaluation. Evaluation on CPUs takes the seconds per state that
an evaluation like it measured, if there is one.

Every stage starts processes as well, and simulations and the report come before and after (`overheads`). The
wall time is that of list scheduling (`makespan`) with the needs of all stages.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Literal

from lola.core.config import located
from lola.core.errors import ConfigError
from lola.core.makespan import Task, critical_path, makespan
from lola.data.systems import get_system
from lola.emulation.emulator import Weights
from lola.emulation.guidance import GuidanceConfig
from lola.evaluation.scores.rows import model_key, stored_bytes
from lola.storage.remote import AnyPath
from lola.training.cost import Hardware
from lola.training.peak import GPUS, processor
from lola.workflows.forecast.capacity import ClusterConfig
from lola.workflows.forecast.extent import Extent
from lola.workflows.forecast.measured import Measured
from lola.workflows.forecast.overheads import (
    CLUSTER_S,
    ENCODING_S,
    EVALUATION_S,
    REPORT_S,
    TRAINING_S,
    simulation_seconds,
)
from lola.workflows.forecast.training_costs import FLOAT, Job, autoencoder_job, emulator_job
from lola.workflows.plan import weights_of
from lola.workflows.sweep import EmulatorModel, SweepConfig, kind_of

Source = Literal["finished", "measured", "peak"]
COPIES = (
    2  # of the numbers of an evaluation, which do not compress: in a part's tables and in the joined ones
)
SHOWN = 2  # members whose states an evaluation keeps of its first trajectory
GUIDED = 3  # forward passes that an observation, or an iteration of its solver, costs: one and its gradient
KEPT = 2  # checkpoints that a training keeps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """A stage, and what it takes.

    Arguments:
        name: Its name.
        needs: The names of the stages that come before.
        source: Where its time is known from.
        seconds: How long one of its parts takes.
        parts: How many parts it has, which may be done at once.
        takes: CPUs and GPUs that a part occupies.
        stored: Bytes that stay.
        read: Bytes that are read.
        scratch: Bytes that are taken meanwhile, and given back.
        remedy: What makes a batch fit, if it does not.
    """

    name: str
    needs: tuple[str, ...] = ()
    source: Source = "peak"
    seconds: float = 0.0
    parts: int = 1
    takes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    stored: float = 0.0
    read: float = 0.0
    scratch: float = 0.0
    remedy: str = ""

    def hours(self, resource: str) -> float:
        """Hours of a resource that it occupies."""
        return self.parts * self.seconds * self.takes.get(resource, 0) / 3600


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a sweep will take.

    Arguments:
        works: Its stages, in order.
        capacity: CPUs and GPUs of the cluster.
        cluster: The cluster.
        simulating: Seconds that missing data take to simulate.
    """

    works: tuple[Work, ...]
    capacity: Mapping[str, float]
    cluster: ClusterConfig
    simulating: float = 0.0

    @property
    def around(self) -> float:
        """Seconds before the first stage and after the last one."""
        return CLUSTER_S + self.simulating + REPORT_S

    def hours(self, resource: str) -> float:
        """Hours of a resource that all stages occupy."""
        return sum(work.hours(resource) for work in self.works)

    @property
    def stored(self) -> float:
        """Bytes that are still to be written and stay."""
        return sum(work.stored for work in self.works if work.source != "finished")

    @property
    def storage_bytes(self) -> float:
        """Bytes that the storage must have free: with what trainings take meanwhile, if all run at once."""
        return self.stored + sum(work.scratch for work in self.works)

    def wall(self, gpus: float | None = None) -> float:
        """Seconds from the start to the end, on this or another number of GPUs."""
        scale = 1.0 if gpus is None else gpus / self.capacity["gpu"]
        capacity = {name: scale * amount for name, amount in self.capacity.items()}
        return self.around + makespan(self._tasks(), capacity)

    @property
    def path(self) -> float:
        """Seconds where nothing is scarce: no number of GPUs is faster."""
        return self.around + critical_path(self._tasks())

    def _tasks(self) -> list[Task]:
        return [
            Task(work.name, work.seconds, frozenset(work.needs), work.takes)
            for work in self.works
            for _ in range(work.parts)
        ]

    @property
    def cost(self) -> float:
        """The price of the hours that stages occupy, at the cluster's prices."""
        if self.cluster.gpus:
            return self.hours("gpu") * self.cluster.gpu_price
        return self.hours("cpu") * self.cluster.cpu_price

    def refuse(self, free: float) -> None:
        """Raise `ConfigError` if the storage has too little room."""
        there = self.cluster.storage * 1e9 or free
        if self.storage_bytes > there:
            raise ConfigError(
                f"the sweep needs {self.storage_bytes / 1e9:.4g} GB of storage ({self.stored / 1e9:.4g} GB "
                f"of results, the rest for checkpoints meanwhile), and {there / 1e9:.4g} GB are free; give "
                "it a larger --storage, fewer --latent-channels or --cache.dtype float16"
            )


def forecast(config: SweepConfig, cluster: ClusterConfig, root: AnyPath, cores: int) -> Forecast:
    """What a sweep will take.

    Arguments:
        config: The sweep.
        cluster: Where it is to run.
        root: The storage root, whose finished stages are reused and measured by.
        cores: CPU cores of this machine.

    Raises:
        ConfigError: A model does not fit its grid, or a stage does not fit the cluster.
    """
    extent = Extent.of(config, root)
    if extent.plan is None:  # else it has seen to that
        config.fit(extent.data(config))
    capacity = cluster.capacity(cores)
    works = tuple(_Forecaster(config, cluster, capacity, extent, Measured(root, extent.plan)).works())
    missing = extent.plan is None
    simulating = simulation_seconds(config.simulation, capacity) if missing else 0.0
    return Forecast(works, capacity, cluster, simulating)


class _Forecaster:
    """Estimates the stages of a sweep one by one."""

    def __init__(
        self,
        config: SweepConfig,
        cluster: ClusterConfig,
        capacity: Mapping[str, float],
        extent: Extent,
        measured: Measured,
    ) -> None:
        self.config, self.cluster, self.capacity = config, cluster, capacity
        self.extent, self.measured = extent, measured
        published = GPUS[cluster.kind]
        self.gpu = published.replace(utilisation=cluster.utilisation)
        self.core = processor(1).replace(utilisation=cluster.utilisation)
        self.samples: dict[tuple[str, int | None], float] = {}  # operations of training on a sample
        self.scores: dict[int, int] = {}  # bytes of tables, by the size of the ensemble

    def works(self) -> Iterator[Work]:
        """Every stage, each after those it needs."""
        config = self.config
        for rate in config.latent_channels:
            yield self._training(autoencoder_job(config, rate, self.extent.grid), self.extent.bytes("train"))
            yield self._encoding(rate)
        emulators: list[tuple[EmulatorModel, int | None]] = [
            (model, rate)
            for rate in config.latent_channels
            for model in (config.diffusion, config.neural_solver)
        ]
        emulators += [(config.pixel, None)] if config.pixel is not None else []
        for model, n in emulators:
            job = emulator_job(config, model, n, self.extent.grid)
            yield self._training(job, self._cache_bytes(n, "train") if n else self.extent.bytes("train"), n)
        yield self._evaluation("persistence", None)
        for rate in config.latent_channels:
            for weights in weights_of(config.autoencoder_training):
                yield self._evaluation("autoencoder", rate, weights=weights)
        for context in (None, *config.contexts):
            for model, n in emulators:
                steps = config.solver_steps if kind_of(model) == "diffusion" else (0,)
                for weights in weights_of(config.pixel_training if n is None else config.emulator_training):
                    for number in steps:
                        yield self._evaluation(kind_of(model), n, model, number, weights, context)
        for n in config.latent_channels if config.guidance is not None else ():
            most = max(config.solver_steps)
            yield self._evaluation("diffusion", n, config.diffusion, most, guidance=config.guidance)

    def _rate(self, n: int | None) -> str:
        rate = self.config.autoencoder.rate(len(self.extent.grid))
        return "pixel" if n is None else f"{rate}c{n}"

    def _device(self, gpus: float, cpus: float) -> tuple[Hardware, dict[str, float]]:
        """What a worker computes on, and what it takes."""
        if gpus and not self.cluster.gpus:
            raise ConfigError(
                f"a worker takes {gpus:g} {'GPU' if gpus == 1 else 'GPUs'}, and the cluster has none; "
                "plan for some with --cluster.gpus, or train without: the options that end in .gpus"
            )
        hardware = (
            self.gpu
            if gpus
            else self.core.replace(float32=cpus * self.core.float32, bfloat16=cpus * self.core.bfloat16)
        )
        return hardware, {"cpu": cpus} | ({"gpu": gpus} if gpus else {})

    def _training(self, job: Job, dataset: float, n: int | None = None) -> Work:
        training = job.training
        hardware, takes = self._device(training.gpus, training.cpus)
        cost = job.estimate(hardware)
        key = job.name.split()[0], job.model.latent_channels if job.kind == "autoencoder" else n
        self.samples[key] = cost.flops / training.batch_size
        kind = self.cluster.kind if training.gpus else "cpu"
        measured = self.measured.step(job, kind)
        weights = FLOAT * cost.parameters * (2 if training.ema else 1)
        state = cost.memory.optimizer + weights
        what = job.name.replace(" ", "-")
        done = self.measured.finished("autoencoders" if job.kind == "autoencoder" else "emulators", what)
        read = training.steps * training.batch_size * job.sample_bytes / job.states[1]
        if dataset <= training.order.memory * 1e9 / 2:  # it stays in memory once it has been read
            read = min(dataset, read)
        return Work(
            name=what,
            needs=(f"latents-{self._rate(n)}",) if n else (),
            source="finished" if done else "measured" if measured else "peak",
            seconds=0.0 if done else TRAINING_S + training.steps * (measured or cost.seconds),
            takes={resource: training.most_workers * each for resource, each in takes.items()},
            stored=2 * weights,  # the stage's, and MLflow's copy
            read=0.0 if done else read,
            scratch=0.0 if done else (KEPT + 1) * state,
            remedy=cost.remedy if training.gpus else "",
        )

    def _cache_bytes(self, n: int, *splits: str) -> float:
        """Bytes of some splits of a latent cache, of all by default."""
        cells = math.prod(self.extent.grid) / math.prod(
            self.config.autoencoder.factors(len(self.extent.grid))
        )
        return self._encoded(*splits) * n * cells * (2 if self.config.cache.dtype == "float16" else 4)

    def _encoded(self, *splits: str) -> float:
        """States that a cache holds of some splits, of all by default, variants included."""
        each, variants = self.extent.trajectories, {"train": self.config.cache.variants}
        return self.extent.steps * sum(each[name] * variants.get(name, 1) for name in splits or each)

    def _encoding(self, n: int) -> Work:
        cache, name = self.config.cache, f"latents-{self._rate(n)}"
        hardware, takes = self._device(cache.gpus, 0.5 if cache.gpus else 1)
        operations = self.samples["autoencoder", n] / 6
        rate = hardware.utilisation * hardware.peak(cache.precision)
        done = self.measured.finished("latents", name)
        measured = 0.0 if cache.gpus else self.measured.encoding(name)
        return Work(
            name=name,
            needs=(f"autoencoder-{self._rate(n)}",),
            source="finished" if done else "measured" if measured else "peak",
            seconds=0.0
            if done
            else ENCODING_S + self._encoded() * (measured or operations / rate) / cache.actors,
            parts=cache.actors,
            takes=takes,
            stored=self._cache_bytes(n),
            read=0.0 if done else self.extent.bytes(),
        )

    def _evaluation(
        self,
        subject: str,
        n: int | None,
        model: EmulatorModel | None = None,
        steps: int = 0,
        weights: Weights = "raw",
        context: int | None = None,
        guidance: GuidanceConfig | None = None,
    ) -> Work:
        scoring = self.config.evaluation
        name = f"{model_key(subject, weights)}-{self._rate(n)}" + (f"-s{steps}" if steps else "")
        name += ("-guided" if guidance else "") + (f"-k{context}" if context else "")
        known = context or scoring.context
        with located("evaluation."):
            scoring.check_steps(self.extent.steps, (known,))
        leads = [len(range(start, self.extent.steps, scoring.stride)) - known for start in scoring.starts]
        lead = sum(leads)
        trajectories = min(scoring.trajectories, self.extent.trajectories["test"])
        members = scoring.members if subject == "diffusion" else 1
        operations = self._operations(model, n, steps, leads, known, guidance) * members
        gpus = 1.0 if self.cluster.gpus and self.config.emulator_training.gpus and operations else 0.0
        hardware, takes = self._device(gpus, 1)
        measured = 0.0 if gpus else self.measured.evaluation(name) * members * lead
        done = self.measured.finished("evaluations", name)
        scores = self._scores(members) * (2 if n is not None and model is not None else 1)  # two targets
        pictures = min(members, SHOWN) + (2 if members > 1 else 0)  # with the mean and the deviation
        there = self.capacity["gpu" if gpus else "cpu"]
        parts = max(1, min(trajectories, int(there)))
        each = measured or operations / (hardware.utilisation * hardware.peak("float32"))
        needs = [] if n is None else [f"autoencoder-{self._rate(n)}"]
        needs += [] if model is None else [f"{kind_of(model)}-{self._rate(n)}"]
        return Work(
            name=f"evaluation {name}",
            needs=tuple(needs),
            source="finished" if done else "measured" if measured else "peak",
            seconds=0.0 if done else EVALUATION_S + math.ceil(trajectories / parts) * each,
            parts=parts,
            takes=takes,
            stored=COPIES * scores * trajectories * lead + 2 * pictures * leads[0] * self.extent.state,
            read=0.0 if done else trajectories * (lead + known * len(leads)) * self.extent.state,
        )

    def _scores(self, members: int) -> int:
        """Bytes of an evaluation's tables per state and target."""
        if members not in self.scores:
            channels = get_system(self.config.system).channels
            self.scores[members] = stored_bytes(channels, self.extent.grid, members)
        return self.scores[members]

    def _operations(
        self,
        model: EmulatorModel | None,
        n: int | None,
        steps: int,
        leads: list[int],
        context: int,
        guidance: GuidanceConfig | None,
    ) -> float:
        """Operations of one member of a trajectory, from all of its start states."""
        first, more = self.config.window - context, self.config.window - self.config.evaluation.overlap
        windows = sum(1 + max(0, math.ceil((lead - first) / more)) for lead in leads)
        decoding = 0.0 if n is None else self.samples["autoencoder", n] / 6
        operations = decoding * sum(leads)
        if model is not None:
            guided = GUIDED * (1 + guidance.options.get("iterations", 0)) if guidance else 0
            each = self.samples[kind_of(model), n] / 3 * (1 + guided) + decoding * guided * self.config.window
            operations += windows * max(1, steps) * each
        return operations
