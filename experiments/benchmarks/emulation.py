r"""How long a state takes: by the simulator, and by neural solvers and diffusion models (Table 1).

Emulators roll out one window and decode it, in latent and in pixel space. The plain way has the plain
networks and computes everything again in every call of a network; ours computes what stays the same during a
rollout once. Both have the same weights, sampler and noise, and the largest difference of their states is
reported.

With one row the time is the latency: how long a user waits for a state. With many, members and trajectories
together, it is that of a state while all are computed. Whether batching pays is the ratio of the two.
"""

import copy
import dataclasses
import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.configs import WINDOW, EmulationBenchmark, Model, Space
from benchmarks.decoded import decoded_window
from benchmarks.plain_autoencoder import PlainAutoencoder
from benchmarks.plain_transformer import PlainTransformer
from benchmarks.simulators import time_simulator
from benchmarks.timing import describe_machine, interleave, ratio
from torch import Tensor, nn

from lola.core.errors import LolaError
from lola.data.description import EULER
from lola.emulation.emulator import Emulator
from lola.emulation.inference_config import InferenceConfig
from lola.models.binding import BoundNetwork
from lola.models.diffusion import Diffusion, NoisyNetwork
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver import NeuralSolver
from lola.models.neural_solver_config import NeuralSolverConfig

CHANNELS = len(EULER.channels)
PARAMETERS = 5


class Plain(Emulator):
    """An emulator that computes everything again in every call of its network."""

    def bind(self, mask: Tensor, parameters: Tensor) -> BoundNetwork | None:
        return None


class PlainCodec(nn.Module):
    """The decoder of a plain autoencoder."""

    def __init__(self, plain: PlainAutoencoder) -> None:
        super().__init__()
        self.plain = plain

    def decode(self, z: Tensor) -> Tensor:
        return self.plain.unpatch(self.plain.decoder["levels"](z))


def run_emulation_benchmark(config: EmulationBenchmark, progress: Callable[[str], None]) -> dict[str, Any]:
    """Time everything that the configuration names.

    Arguments:
        progress: Called with the name of what is timed next.

    Returns:
        JSON values: `machine`, `simulator` (seconds per state, every sample), `simulators` of other systems
        and `cases` with every sample.

    Raises:
        LolaError: The simulator is not installed.
    """
    progress("simulator")
    others = (config.convection, config.medium) if config.simulators else ()
    timed = time_simulator(config.simulation, config.rounds, config.clock)
    if timed.missing:
        raise LolaError(timed.missing)
    timings = [time_simulator(other, config.rounds, config.clock) for other in others]
    result: dict[str, Any] = {
        "kind": "emulation",
        "machine": describe_machine() | {"clock": config.clock},
        "steps": config.sampler.steps,
        "simulator": list(timed.seconds),
        "simulators": [
            dataclasses.asdict(timing) | {"grid": list(timing.grid), "seconds": list(timing.seconds)}
            for timing in timings
        ],
        "cases": [],
    }
    for model in config.models:
        for space in config.spaces:
            progress(f"{model} {space}")
            result["cases"].append({"model": model, "space": space, **_time(config, model, space)})
    return result


def _time(config: EmulationBenchmark, model: Model, space: Space) -> dict[str, Any]:
    """Every variant's seconds per state, and the largest difference between ours and plain in float32."""
    torch.manual_seed(0)
    ours, plain = build_pair(config, model, space)
    channels = CHANNELS if space == "pixel" else config.autoencoder.latent_channels
    steps: dict[str, Callable[[], Tensor]] = {}
    variants: list[dict[str, Any]] = []
    first: dict[str, Tensor] = {}
    for rows in config.rows:
        context = torch.randn(1, channels, 1, *config.grid(space)).expand(rows, -1, -1, -1, -1)
        parameters = torch.randn(1, PARAMETERS).expand(rows, -1)
        for dtype in config.precisions:
            for writing, compiled in (("plain", False), ("ours", False), ("ours", True)):
                if compiled and not config.compiled:
                    continue
                settings = InferenceConfig(precision=dtype, rows=rows, compile=compiled)
                emulator = dataclasses.replace(ours if writing == "ours" else plain, inference=settings)
                name = f"{writing} {dtype} {'compiled' if compiled else 'eager'} {rows}"
                steps[name] = decoded_window(emulator, context, parameters, WINDOW - 1)
                first[name] = steps[name]()
                variants.append({"writing": writing, "precision": dtype, "compiled": compiled, "rows": rows})
    seconds = interleave(steps, config.rounds, config.clock)
    states = WINDOW - 1
    for variant, samples in zip(variants, seconds.values(), strict=True):
        variant["seconds"] = [sample / (states * variant["rows"]) for sample in samples]
    rows = config.rows[0]
    pair = [first.get(f"{writing} float32 eager {rows}") for writing in ("plain", "ours")]
    max_abs_diff = None if pair[0] is None or pair[1] is None else float((pair[0] - pair[1]).abs().max())
    return {"variants": variants, "max_abs_diff": max_abs_diff}


def build_pair(config: EmulationBenchmark, model: Model, space: Space) -> tuple[Emulator, Plain]:
    """The emulator and its plain baseline, with the same weights."""
    network = config.latent if space == "latent" else config.pixel
    channels = CHANNELS if space == "pixel" else config.autoencoder.latent_channels
    kind = DiffusionConfig if model == "diffusion" else NeuralSolverConfig
    ours = kind(network=network).build(channels, PARAMETERS, 2, WINDOW)
    baseline = copy.deepcopy(ours)
    plain = PlainTransformer(network, 2 * channels, channels)
    owner = baseline.denoiser.backbone if isinstance(baseline, Diffusion) else baseline
    assert isinstance(owner, NoisyNetwork | NeuralSolver)
    plain.load_state_dict(owner.network.state_dict())
    owner.network = plain
    codec = baseline_codec = None
    if space == "latent":
        codec = config.autoencoder.build(CHANNELS, 2)
        autoencoder = PlainAutoencoder(config.autoencoder, CHANNELS, 2)
        autoencoder.load_state_dict(codec.state_dict())
        baseline_codec = PlainCodec(autoencoder)
    return (
        Emulator(model=ours, autoencoder=codec, sampler=config.sampler),
        Plain(model=baseline, autoencoder=baseline_codec, sampler=config.sampler),  # type: ignore[arg-type]
    )


def emulation_table(result: dict[str, Any]) -> str:
    """The result as a Markdown table, in milliseconds per state.

    `plain alike` is how many times faster than the plain way with as many rows in the same precision; `plain
    one by one`, than the plain way in float32 with one row; `simulator`, than the simulator.
    """
    lines = [
        "| model | space | rows | precision | way | ms | plain alike | plain one by one | simulator |",
        "| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    simulator = statistics.median(result["simulator"]) if result["simulator"] else math.nan
    lines.append(f"| simulator | pixel | 1 | float64 | | {1e3 * simulator:.2f} | | | 1.0 |")
    for other in result["simulators"]:
        name = f"simulator, {other['system']} {' x '.join(map(str, other['grid']))}"
        if other["seconds"]:
            milliseconds = 1e3 * statistics.median(other["seconds"])
            lines.append(f"| {name} | pixel | 1 | float64 | | {milliseconds:.2f} | | | |")
    for case in result["cases"]:
        samples = {
            (variant["writing"], variant["precision"], variant["rows"], variant["compiled"]): variant[
                "seconds"
            ]
            for variant in case["variants"]
        }
        alone = samples.get(("plain", "float32", 1, False))
        for (writing, dtype, rows, compiled), seconds in samples.items():
            cells = (
                case["model"],
                case["space"],
                str(rows),
                dtype,
                f"{writing} compiled" if compiled else writing,
                f"{1e3 * statistics.median(seconds):.2f}",
                f"{ratio(samples['plain', dtype, rows, False], seconds):.2f}",
                f"{ratio(alone, seconds):.2f}" if alone else "",
                f"{simulator / statistics.median(seconds):.2f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    max_abs_diff = [case["max_abs_diff"] for case in result["cases"] if case["max_abs_diff"] is not None]
    note = f"Diffusion in {result['steps']} solver steps."
    if max_abs_diff:
        note += f" Ours and plain differ by at most {max(max_abs_diff):.1e}, of states of order 1."
    missing = [f"{other['missing']}." for other in result["simulators"] if other["missing"]]
    return "\n".join([*lines, "", " ".join([note, *missing])])
