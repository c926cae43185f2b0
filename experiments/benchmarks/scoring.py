"""How fast an ensemble is scored: in one pass, against loops over fields and lead times.

    plain loop       NumPy as one writes it first, see `plain_scoring`
    one pass         `score_ensemble`, which evaluations use

Both compute the same scores of the same numbers, on one thread by default; reported is the median over rounds
of the ratio of their times.
"""

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.configs import MetricsBenchmark
from benchmarks.plain_scoring import plain_scores
from benchmarks.timing import describe_machine, interleave, ratio
from torch import Tensor

from lola.core.keys import derive
from lola.evaluation.scores.ensemble import score_ensemble


def run_metrics_benchmark(config: MetricsBenchmark, progress: Callable[[str], None]) -> dict[str, Any]:
    """Time everything.

    Returns:
        JSON values: `machine`, the `config`, and `seconds` of each variant in every round.
    """
    truth, members = draw(config)
    progress("scores")
    variants: dict[str, Callable[[], object]] = {
        "plain loop": lambda: plain_scores(truth.numpy(), members.numpy()),
        "one pass": lambda: score_ensemble({"truth": truth}, members, spatial=config.dimensions),
    }
    seconds = interleave(variants, config.rounds, config.clock)
    return {"kind": "metrics", "machine": describe_machine(), "config": config.to_json(), "seconds": seconds}


def draw(config: MetricsBenchmark) -> tuple[Tensor, Tensor]:
    """A truth and members of unit variance, half of it in common."""
    generator = torch.Generator().manual_seed(derive("metrics benchmark"))
    shape = (config.fields, config.lead_times, *(config.cells,) * config.dimensions)
    common = torch.randn(shape, generator=generator)
    draws = (common + torch.randn(config.members + 1, *shape, generator=generator)) / 2**0.5
    return draws[0].clone(), draws[1:].clone()


def metrics_table(result: dict[str, Any]) -> str:
    seconds = result["seconds"]
    lines = ["| variant | seconds | one pass is faster by |", "| --- | ---: | ---: |"]
    for name, values in seconds.items():
        lines.append(f"| {name} | {min(values):.3f} | {ratio(values, seconds['one pass']):.1f} |")
    return "\n".join(lines)
