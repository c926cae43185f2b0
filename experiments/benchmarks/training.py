r"""How fast a training step is: forward pass, loss and backward pass, without the optimiser.

Variants differ in writing (ours or plain), precision and whether they are compiled, and take turns on the
same weights and data. Next to seconds, a case holds the operations of a step, so that the table shows which
fraction of the machine's arithmetic (`roofline`) is used.
"""

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from benchmarks.cases import TimedCase, build_case
from benchmarks.configs import (
    Mode,
    TrainingBenchmark,
)
from benchmarks.roofline import roofline
from benchmarks.timing import describe_machine, interleave, ratio
from torch.utils.flop_counter import FlopCounterMode

from lola.training.precision import Precision, precision

Writing = Literal["plain", "plain-channels-last", "ours"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A way of running a case's training step."""

    writing: Writing
    precision: Precision
    mode: Mode

    @property
    def name(self) -> str:
        """A name that no other variant of the case has."""
        return f"{self.writing} {self.precision} {self.mode}"

    def step(self, case: TimedCase) -> Callable[[], None]:
        """The training step, on weights of its own."""
        network = copy.deepcopy(case.ours if self.writing == "ours" else case.plain)
        inputs = case.inputs
        if self.writing == "plain-channels-last":
            assert case.channels_last is not None
            network = network.to(memory_format=case.channels_last)  # type: ignore[call-overload]
            inputs = tuple(x.contiguous(memory_format=case.channels_last) for x in inputs)
        if self.mode == "compiled":
            network.compile()

        def step() -> None:
            with precision(self.precision, torch.device("cpu")):
                loss = case.loss(network(*inputs))
            loss.backward()
            network.zero_grad(set_to_none=True)

        return step


def run_training_benchmark(config: TrainingBenchmark, progress: Callable[[str], None]) -> dict[str, Any]:
    """Time everything that the configuration names.

    Arguments:
        progress: Called with what is done next, and with how long compiling took.

    Returns:
        JSON values: `machine`, `roofline` (10^9 operations per second) and `cases` with every sample.
    """
    progress("roofline")
    result: dict[str, Any] = {
        "kind": "training",
        "machine": describe_machine() | {"clock": config.clock},
        "roofline": roofline(config.rounds, config.clock),
        "cases": [],
    }
    for network in config.networks:
        for size in config.sizes:
            progress(f"{network} {size}")
            case = build_case(network, size, config.autoencoder, config.transformer)
            result["cases"].append({"network": network, "size": size, **_time(case, config, progress)})
    return result


def _time(case: TimedCase, config: TrainingBenchmark, progress: Callable[[str], None]) -> dict[str, Any]:
    writings: tuple[Writing, ...] = ("plain", "plain-channels-last", "ours")
    variants = [
        Variant(writing=writing, precision=precision, mode=mode)
        for precision in config.precisions
        for mode in config.modes
        for writing in writings
        if writing != "plain-channels-last" or case.channels_last is not None
    ]
    first, steps = {}, {}
    for variant in variants:
        step = variant.step(case)
        started = time.perf_counter()
        step()
        first[variant.name] = time.perf_counter() - started
        steps[variant.name] = step
        if variant.mode == "compiled":
            progress(f"  {variant.name} in {first[variant.name]:.0f} s")
    progress(f"  {config.rounds} rounds of {len(steps)} variants")
    seconds = interleave(steps, config.rounds, config.clock)
    return {
        "operations": operations(case),
        "variants": [
            {
                **dataclasses.asdict(variant),
                "first_seconds": first[variant.name],
                "seconds": seconds[variant.name],
            }
            for variant in variants
        ],
    }


def operations(case: TimedCase) -> int:
    """Floating-point operations of the products and convolutions of a training step, without attention."""
    counter = FlopCounterMode(display=False)
    with counter:
        case.loss(case.plain(*case.inputs)).backward()
    case.plain.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def training_table(result: dict[str, Any]) -> str:
    """The result as a Markdown table: times, and speed-ups over the equivalent plain implementation."""
    lines = [
        "| network | size | precision | mode | writing | ms | plain alike | plain float32 | of peak |",
        "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        samples = {(c["writing"], c["precision"], c["mode"]): c["seconds"] for c in case["variants"]}
        base = samples.get(("plain", "float32", "eager"))
        for (writing, dtype, mode), seconds in samples.items():
            middle = statistics.median(seconds)
            peak = max(result["roofline"][dtype].values())
            alike = ratio(samples["plain", dtype, mode], seconds)
            cells = (
                case["network"],
                case["size"],
                dtype,
                mode,
                writing,
                f"{1e3 * middle:.1f}",
                f"{alike:.2f}",
                f"{ratio(base, seconds):.2f}" if base else "",
                f"{case['operations'] / middle / 1e9 / peak:.0%}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    peaks = ", ".join(
        f"{kind} {dtype} {rate:.0f} GFLOP/s"
        for dtype, kinds in result["roofline"].items()
        for kind, rate in kinds.items()
    )
    return "\n".join([*lines, "", f"Peak: {peaks}."])
