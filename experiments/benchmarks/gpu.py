"""Measure a GPU at the paper's sizes, with random weights and made-up data: no Ray, no network.

    python experiments/benchmarks/gpu.py                             # at most 8 minutes
    python experiments/benchmarks/gpu.py --device cpu --small        # a rehearsal without a GPU: a minute

Cases run in the order of how much they say. What is known so far is written after each: as JSON, and as a
table of every figure beside its goal. A case that fails is one line, and the next one goes on.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started as a file: the folder of `benchmarks`, and that of `lola`
    sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import torch
from benchmarks.figures import Figure, Outcome, table
from benchmarks.gpu_inference import EmulationCase, EncodingCase, EqualityCase, ScoringCase, Way
from benchmarks.gpu_target import OutOfTime, Target, limit, machine
from benchmarks.gpu_training import OptimizerCase, TrainingCase, Variant
from benchmarks.paper import MODELS, Trained, emulator
from benchmarks.roofline import roofline

from lola.core.errors import ConfigError, LolaError
from lola.core.filesystem import expand
from lola.models.diffusion_config import DiffusionConfig
from lola.storage.remote import first_line, require_new

OUTPUT = "experiments/results/gpu"
CASE_S = 150.0  # the longest case
LEAST_S = 5.0  # that must be left to begin one
MICRO_BATCHES = 4  # of an ensemble's batch
VARIANTS: tuple[Variant, ...] = ("tuned", "channels first")
Case = Callable[[Target], Iterator[Figure]]


def peak(target: Target) -> Iterator[Figure]:
    """What the device can do at best."""
    size, grid = (256, 16) if target.small else (8192, 256)
    found = roofline(3, size=size, grid=grid, device=target.device)
    for name, rates in found.items():
        target.peak[name] = {kind: 1e9 * rate for kind, rate in rates.items()}
        for kind, rate in rates.items():
            yield Figure(f"{kind} in {name}", rate / 1e3, "TFLOP/s")


def in_parts(trained: Trained) -> Trained:
    """A training in micro-batches: at once, an ensemble's batch needs more memory than an H100 has."""
    return dataclasses.replace(trained, training=trained.training.replace(accumulate=MICRO_BATCHES))


def all_cases() -> dict[str, Case]:
    """The cases by name, the most telling ones first, of which eager ones come before those that compile."""
    codec, solver = MODELS["euler autoencoder f32c64"], MODELS["euler neural_solver f32c64"]
    pixel, crps = MODELS["euler neural_solver pixel"], MODELS["euler crps_ensemble f32c64"]
    diffusion = emulator("euler", DiffusionConfig(), 64)
    trainings = {
        "euler diffusion f32c64": (diffusion, 0.55),
        "euler autoencoder f32c64": (codec, 0.35),
        "euler neural_solver pixel": (pixel, 0.5),
        "euler crps_ensemble f32c64": (in_parts(crps), 0.55),
        "rayleigh_benard autoencoder f32c64": (MODELS["rayleigh_benard autoencoder f32c64"], 0.35),
        "turbulence_gravity_cooling autoencoder f8c64": (
            MODELS["turbulence_gravity_cooling autoencoder f8c64"],
            0.35,
        ),
        "euler neural_solver f32c64": (solver, 0.55),
    }
    emulations = {
        "neural_solver f32c64": (solver, codec, 64, {0: 4e-3}),
        "diffusion f32c64": (diffusion, codec, 64, {16: 20e-3, 4: 20e-3}),
        "neural_solver pixel": (pixel, None, 16, {0: 20e-3}),
        "crps_ensemble f32c64": (crps, codec, 64, {0: 4e-3}),
    }

    def train(way: str) -> dict[str, Case]:
        return {
            f"train {name}, {way}": TrainingCase(model, way == "compiled", goal)
            for name, (model, goal) in trainings.items()
        }

    def emulate(way: Way) -> dict[str, Case]:
        return {
            f"emulate euler {name}, {way}": EmulationCase(model, decoder, way, batch, goals)
            for name, (model, decoder, batch, goals) in emulations.items()
        }

    optimizer = codec.training.optimizer
    eager, compiled = train("eager"), train("compiled")
    main = 3  # trainings that say most
    return {
        "peak": peak,
        **dict(list(eager.items())[:main]),
        **emulate("eager"),
        "score": ScoringCase(codec),
        "encode euler, eager": EncodingCase(codec, False),
        **dict(list(compiled.items())[:main]),
        **emulate("graphs"),
        **dict(list(eager.items())[main:]),
        **{
            f"train {name}, eager, {variant}": TrainingCase(model, False, goal, variant)
            for name, (model, goal) in trainings.items()
            if "autoencoder" in name and "rayleigh" not in name
            for variant in VARIANTS
        },
        "encode euler, compiled": EncodingCase(codec, True),
        "equal to the CPU": EqualityCase(solver, codec),
        **dict(list(compiled.items())[main:]),
        **emulate("compiled"),
        **{
            f"optimiser {name}, {way}": OptimizerCase(codec, optimizer.replace(name=name), way == "compiled")
            for name, way in (("psgd", "eager"), ("psgd", "compiled"), ("soap", "eager"), ("adam", "eager"))
        },
    }


def run(
    target: Target,
    cases: Mapping[str, Case],
    minutes: float,
    write: Callable[[Target, list[Outcome], list[str]], None],
    progress: Callable[[str], None],
) -> list[Outcome]:
    """Run cases until the time is over.

    Arguments:
        write: Called after each case with what is known, and the names of those that have not begun.
        progress: Called with a line about each case.
    """
    deadline = time.monotonic() + 60 * minutes
    outcomes: list[Outcome] = []
    waiting = list(cases)
    while waiting and deadline - time.monotonic() >= min(LEAST_S, 30 * minutes):
        name = waiting.pop(0)
        outcomes.append(run_case(target, name, cases[name], min(CASE_S, deadline - time.monotonic())))
        write(target, outcomes, waiting)
        said = outcomes[-1].error or "; ".join(
            f"{figure.name} {figure.shown[0]}" for figure in outcomes[-1].figures
        )
        progress(f"{outcomes[-1].seconds:5.1f} s  {name}: {said}")
    return outcomes


def run_case(target: Target, name: str, case: Case, seconds: float) -> Outcome:
    """Run a case; what it measured before it failed counts."""
    started, error = time.monotonic(), ""
    figures: list[Figure] = []
    try:
        with limit(seconds):
            for figure in case(target):
                figures.append(figure)
    except OutOfTime as end:
        error = str(end)
    except Exception as failure:  # whatever a driver, a compiler or the memory says
        error = f"{type(failure).__name__}: {first_line(failure)}"
    outcome = Outcome(name, time.monotonic() - started, figures, error)
    target.release()
    return outcome


def write_results(
    folder: Path,
    name: str,
    about: dict[str, Any],
    target: Target,
    outcomes: list[Outcome],
    waiting: Sequence[str],
) -> None:
    """Write what is known, whole files in place of earlier ones."""
    used = {network: statistics.fmean(shares) for network, shares in target.utilisation.items()}
    values = {
        **about,
        "utilisation": used,
        "cases": [each.to_json() for each in outcomes],
        "not begun": list(waiting),
    }
    device = ", ".join(f"{key} {value}" for key, value in about["device"].items())
    text = [f"Measured on: {device}.", "", table(outcomes)]
    text += ["", f"Not begun: {', '.join(waiting)}."] if waiting else []
    for end, content in (("json", json.dumps(values, indent=1)), ("md", "\n".join(text))):
        temporary = folder / f".{name}.{end}"
        temporary.write_text(content + "\n")
        temporary.replace(folder / f"{name}.{end}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark that a command line describes."""
    options = parse(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"torch {torch.__version__} sees no CUDA device here; rehearse with --device cpu --small"
        )
    cases = all_cases()
    chosen = {name: case for name, case in cases.items() if all(word in name for word in options.only)}
    if not chosen:
        raise ConfigError(
            f"--only {' '.join(options.only)}: no case has these words; there are {', '.join(cases)}"
        )
    if options.only:
        chosen = {"peak": peak} | chosen
    target = Target(device, options.small)
    about = {"kind": "gpu", "small": options.small, "minutes": options.minutes, "device": machine(device)}
    name = f"{about['device']['kind'].replace(' ', '-').lower()}{'-small' if options.small else ''}"
    folder = expand(options.output)
    for end in ("json", "md"):
        require_new(folder / f"{name}.{end}", options.overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    write = functools.partial(write_results, folder, name, about)
    torch.compiler.set_stance("force_eager" if options.small else "default")
    try:
        outcomes = run(target, chosen, options.minutes, write, functools.partial(print, flush=True))
    finally:
        torch.compiler.set_stance("default")
    print(table(outcomes))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="no case goes on for longer; default: 8")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models, nothing compiled: a rehearsal")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="cases whose names have all words"
    )
    parser.add_argument("--output", default=OUTPUT, help=f"the folder of results; default: {OUTPUT}")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results of such a device")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= 1440:
        parser.error(f"--minutes must be above 0 and at most 1440, not {options.minutes:g}")
    return options


if __name__ == "__main__":
    try:
        main()
    except LolaError as error:
        sys.exit(f"gpu.py: error: {error}")
