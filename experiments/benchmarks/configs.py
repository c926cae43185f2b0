"""Options of the benchmarks."""

import dataclasses
from typing import Annotated, Literal

import tyro

from lola.core.config import Config, Count, Distinct, NotNegative, Size, Within, require
from lola.data.description import EULER
from lola.emulation.sampling_config import SamplerConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.simulate.euler import EulerConfig
from lola.simulate.gravity_cooling import GravityCoolingConfig
from lola.simulate.rayleigh_benard import RayleighBenardConfig
from lola.training.config import TrainingConfig
from lola.training.precision import Precision

Clock = Literal["wall", "cpu"]
Rounds = Annotated[int, Within("[1, 1e6]")]
Threads = Annotated[int, Within("[0, 1024]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark(Config):
    """What all timings have.

    Arguments:
        rounds: Number of timings of each variant.
        threads: Threads of torch; 0 leaves its choice.
        output: The folder where the result is written, as JSON and as a table.
        overwrite: Replace the files of an earlier result.
    """

    rounds: Rounds = 5
    threads: Threads = 0
    output: str = "experiments/results/benchmark"
    overwrite: bool = False


Network = Literal["autoencoder-2d", "autoencoder-3d", "transformer"]
CaseSize = Literal["demo", "wide"]
# The only values that the plain implementations support
PLAIN_AUTOENCODER: dict[str, object] = {
    "pixel_shuffle": True,
    "attention_heads": (),
    "periodic": False,
    "norm": "layer",
    "saturation": "softclip2",
    "kl_weight": 0.0,
    "latent_noise": 0.0,
    "dropout": 0.0,
}
PLAIN_TRANSFORMER: dict[str, object] = {"qk_norm": True, "rope": True, "dropout": 0.0}


def check_plain(autoencoder: AutoencoderConfig, transformer: TransformerConfig) -> None:
    """Raise `ConfigError` unless both networks have a plain implementation."""
    for config, values in ((autoencoder, PLAIN_AUTOENCODER), (transformer, PLAIN_TRANSFORMER)):
        for name, value in values.items():
            found = getattr(config, name)
            require(found == value, f"{name} must be {value!r} to have a plain implementation, not {found!r}")


Mode = Literal["eager", "compiled"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingBenchmark(Benchmark):
    """What is timed.

    Arguments:
        autoencoder: The autoencoder at size `demo`.
        transformer: The transformer at size `demo`.
        networks: The networks to time.
        sizes: Their sizes.
        precisions: Precisions to time.
        modes: Eager or compiled, or both.
        clock: Wall time, or CPU time of this process (for a busy machine, with one thread).
    """

    autoencoder: AutoencoderConfig
    transformer: TransformerConfig
    networks: Distinct[Network] = ("autoencoder-2d", "autoencoder-3d", "transformer")
    sizes: Distinct[CaseSize] = ("demo", "wide")
    precisions: Distinct[Precision] = ("float32", "bfloat16")
    modes: Distinct[Mode] = ("eager",)
    rounds: Rounds = 9
    clock: Clock = "wall"

    def validate(self) -> None:
        check_plain(self.autoencoder, self.transformer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataBenchmark(Benchmark):
    """What is timed.

    Arguments:
        system: The physical system whose files are imitated.
        emulator: The emulator whose training waits for data.
        training: How it is trained.
        gigabytes: Size of the datasets.
        cells: Cells along each axis of the fields' grid.
        steps: States of each trajectory.
        batch_size: Windows per batch.
        window: States per latent window.
        stride: Simulation steps between states.
        ray: Whether Ray Data and the encoder of caches are timed as well.
        memory: Measure the memory of a long stream instead of speeds.
    """

    system: str = "euler"
    emulator: NeuralSolverConfig
    training: TrainingConfig
    gigabytes: Annotated[float, Within("(0, 10000]")] = 0.5
    cells: Annotated[int, Within("[4, 4096]")] = 128
    steps: Annotated[int, Within("[1, 100000]")] = 51
    batch_size: Size = 64
    window: Size = 5
    stride: Annotated[int, Within("[1, 1e9]")] = 4
    rounds: Rounds = 7
    threads: Threads = 1
    ray: bool = True
    memory: bool = False

    def validate(self) -> None:
        require(
            (self.window - 1) * self.stride < self.steps,
            f"--window {self.window} at --stride {self.stride} does not fit into --steps {self.steps}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingBenchmark(Benchmark):
    """What is measured.

    Arguments:
        kind: The GPUs that the paper's trainings run on.
        gigabytes: Size of the fields.
        cells: Cells along each axis of their grid.
        steps: States of each trajectory.
        trajectories: Trajectories of latent states.
        batch_size: Windows of fields per batch.
        window: States per window.
    """

    kind: Literal["h100", "h200", "a100-80gb"] = "h100"
    gigabytes: Annotated[float, Within("(0, 1000]")] = 0.5
    cells: Annotated[int, Within("[4, 4096]")] = 256
    steps: Annotated[int, Within("[1, 100000]")] = 51
    trajectories: Size = 16
    batch_size: Size = 4
    window: Size = 5
    rounds: Rounds = 2
    threads: Threads = 1

    def validate(self) -> None:
        span = (self.window - 1) * EULER.stride
        require(span < self.steps, f"--window {self.window} takes {span + 1} --steps, not {self.steps}")


Space = Literal["latent", "pixel"]
Model = Literal["neural_solver", "diffusion"]
WINDOW = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmulationBenchmark(Benchmark):
    """What is timed.

    Arguments:
        autoencoder: The autoencoder of the latent space.
        latent: The network in latent space.
        pixel: The network in pixel space.
        simulation: The simulator: its grid is that of all states.
        convection, medium: The simulators of other systems, timed where they are installed.
        simulators: Whether these others are timed as well.
        sampler: How diffusion models are sampled.
        models: The models to time.
        spaces: Latent or pixel space, or both.
        rows: Windows computed together: 1 is the latency.
        precisions: Precisions to time.
        compiled: Whether ours is timed compiled as well.
        clock: Wall time, or CPU time of this process (for a busy machine, with one thread).
    """

    autoencoder: AutoencoderConfig
    latent: TransformerConfig
    pixel: TransformerConfig
    simulation: EulerConfig
    convection: RayleighBenardConfig = dataclasses.field(
        default_factory=lambda: RayleighBenardConfig(resolution=(64, 32), rayleigh=(1e6,))
    )
    medium: GravityCoolingConfig = dataclasses.field(default_factory=GravityCoolingConfig)
    simulators: bool = True
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)
    models: Distinct[Model] = ("neural_solver", "diffusion")
    spaces: Distinct[Space] = ("latent", "pixel")
    rows: Distinct[Size] = (1, 16)
    precisions: Distinct[Precision] = ("float32",)
    compiled: bool = False
    clock: Clock = "wall"

    def validate(self) -> None:
        for network in (self.latent, self.pixel):
            require(
                network.qk_norm and network.rope,
                "the plain transformer has query-key normalisation and rotary positions; choose so",
            )
        self.latent.check_grid(self.grid("latent"), WINDOW)
        self.pixel.check_grid(self.grid("pixel"), WINDOW)

    def grid(self, space: Space) -> tuple[int, int]:
        """The cells of a state in a space."""
        n = self.simulation.resolution
        if space == "pixel":
            return n, n
        self.autoencoder.check_grid((n, n))
        x, y = (n // factor for factor in self.autoencoder.factors(2))
        return x, y


BYTES = 8e9  # of the ensemble that is scored


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsBenchmark(Benchmark):
    """What is timed.

    Arguments:
        members: Members of the ensemble.
        fields: Channels.
        lead_times: States of each member.
        cells: Cells along each axis of the grid.
        dimensions: Axes of the grid.
        clock: Wall time, or CPU time of this process (more reliable on a busy machine).
    """

    members: Annotated[int, Within("[2, 4096]")] = 16
    fields: Annotated[int, Within("[1, 4096]")] = 5
    lead_times: Annotated[int, Within("[1, 100000]")] = 25
    cells: Annotated[int, Within("[4, 4096]")] = 64
    dimensions: Annotated[int, Within("[1, 3]")] = 2
    threads: Threads = 1
    clock: Clock = "wall"

    def validate(self) -> None:
        size = 4.0 * self.members * self.fields * self.lead_times * self.cells**self.dimensions
        require(
            size <= BYTES,
            f"--members, --fields, --lead-times, --cells and --dimensions make {size / 1e9:.3g} GB of "
            f"states; {BYTES / 1e9:g} GB is the maximum",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchedulingBenchmark(Config):
    """What is scheduled.

    Arguments:
        trials: Trials of the sweep.
        nodes: Nodes of 8 GPUs and 192 CPUs that the cluster says it has; each runs one trial at a time.
        output: The folder where results are written.
        overwrite: Replace the files of earlier results.
    """

    trials: Annotated[int, Within("[1, 100000]")] = 10000
    nodes: Size = 4
    output: str = "experiments/results/benchmark"
    overwrite: bool = False


Scenario = Literal["worker killed", "node lost", "node gained", "node preempted"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DisturbanceConfig(Config):
    """Which scenarios are run, and on what.

    Arguments:
        scenarios: What happens to the runs.
        steps: Training steps.
        report_every: Steps between checkpoints.
        pace: Minimum seconds per step.
        notice: Seconds between a preemption's notice and the loss of the node.
        output: The folder where results are written.
        overwrite: Replace the files of earlier results.
    """

    scenarios: Distinct[Scenario] = ("worker killed", "node lost", "node gained", "node preempted")
    steps: Count = 300
    report_every: Count = 25
    pace: Annotated[float, Within("[0, 3600]")] = 0.1
    notice: Annotated[int, Within("[1, 3600]")] = 15
    output: str = "experiments/results/elastic"
    overwrite: bool = False


Seconds = Annotated[float, Within("[0, 86400]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoakConfig(Config):
    """How a sweep is disturbed.

    Arguments:
        kills: Processes to kill.
        seed: Decides the moments and the processes.
        between: The least and the most seconds between kills.
        tolerance: Largest relative difference of a value of the tables.
        folder: Where everything is written; it must not exist.
    """

    kills: Count = 20
    seed: int = 0
    between: tuple[Seconds, Seconds] = (2.0, 40.0)
    tolerance: NotNegative = 1e-5
    folder: str

    def validate(self) -> None:
        require(
            self.between[0] <= self.between[1], f"--between takes the least seconds first, not {self.between}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AccountConfig(Config):
    """Which command is accounted for.

    Arguments:
        command: The command, as one argument: it runs without a shell.
        output: A file for the table; empty for none.
        overwrite: Replace it.
    """

    command: tyro.conf.Positional[str]
    output: str = ""
    overwrite: bool = False

    def validate(self) -> None:
        require(bool(self.command.strip()), "the command is empty; give one, in quotes")
