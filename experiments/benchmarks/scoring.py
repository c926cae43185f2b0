"""How fast an ensemble is scored: in one pass, against loops over fields and lead times.

    plain loop       NumPy as one writes it first, see `plain_scoring`
    one pass         `score_ensemble`, which evaluations use

Both compute the same scores of the same numbers, on one thread by default; reported is the median over rounds
of the ratio of their times.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import torch
from benchmarks.plain_scoring import plain_scores
from benchmarks.timing import Clock, Rounds, Threads, interleave, machine, ratio
from torch import Tensor

from lola.core.config import Config, Within, require
from lola.core.seeding import derive
from lola.evaluation.scores.ensemble import score_ensemble

BYTES = 8e9  # of the ensemble that is scored


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsBenchmark(Config):
    """What is timed.

    Arguments:
        members: Members of the ensemble.
        fields: Channels.
        lead_times: States of each member.
        cells: Cells along each axis of the grid.
        dimensions: Axes of the grid.
        rounds: How often each variant is timed.
        threads: Threads of torch; 0 leaves its choice.
        clock: Seconds that pass, or that this process computes; these tell more on a busy machine.
        output: The folder where results are written.
    """

    members: Annotated[int, Within("[2, 4096]")] = 16
    fields: Annotated[int, Within("[1, 4096]")] = 5
    lead_times: Annotated[int, Within("[1, 100000]")] = 25
    cells: Annotated[int, Within("[4, 4096]")] = 64
    dimensions: Annotated[int, Within("[1, 3]")] = 2
    rounds: Rounds = 5
    threads: Threads = 1
    clock: Clock = "wall"
    output: str = "experiments/results/benchmark"

    def validate(self) -> None:
        size = 4.0 * self.members * self.fields * self.lead_times * self.cells**self.dimensions
        require(
            size <= BYTES,
            f"--members, --fields, --lead-times, --cells and --dimensions make {size / 1e9:.3g} GB of "
            f"states; {BYTES / 1e9:g} GB are the most",
        )


def run_metrics_benchmark(config: MetricsBenchmark, progress: Callable[[str], None]) -> dict[str, Any]:
    """Time everything.

    Returns:
        JSON values: `machine`, the `config`, and `seconds` of each variant in every round.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    truth, members = draw(config)
    progress("scores")
    variants: dict[str, Callable[[], object]] = {
        "plain loop": lambda: plain_scores(truth.numpy(), members.numpy()),
        "one pass": lambda: score_ensemble({"truth": truth}, members, spatial=config.dimensions),
    }
    seconds = interleave(variants, config.rounds, config.clock)
    return {"kind": "metrics", "machine": machine(), "config": config.what(), "seconds": seconds}


def draw(config: MetricsBenchmark) -> tuple[Tensor, Tensor]:
    """A truth and members of unit variance, half of it in common."""
    generator = torch.Generator().manual_seed(derive("metrics benchmark"))
    shape = (config.fields, config.lead_times, *(config.cells,) * config.dimensions)
    common = torch.randn(shape, generator=generator)
    draws = (common + torch.randn(config.members + 1, *shape, generator=generator)) / 2**0.5
    return draws[0].clone(), draws[1:].clone()


def metrics_table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    seconds = result["seconds"]
    lines = ["| variant | seconds | one pass is faster by |", "| --- | ---: | ---: |"]
    for name, values in seconds.items():
        lines.append(f"| {name} | {min(values):.3f} | {ratio(values, seconds['one pass']):.1f} |")
    return "\n".join(lines)
