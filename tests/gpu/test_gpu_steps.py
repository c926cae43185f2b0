"""What a training step costs the host: synchronisations, and the time that its random numbers take."""

import statistics
import warnings

import pytest
import torch
from cases import CASES, CONFIG, Case

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.training.loop import train

SHARE = 0.05
STEPS = 12


def count_synchronisations(case: Case, device: torch.device, **how: object) -> list[list[str]]:
    """Where every step but the first and those that report waits for the device."""
    steps: list[list[str]] = []
    config = CONFIG.replace(steps=STEPS, report_every=STEPS, **how)
    model, source = case.build(device), case.source
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")

        def stepped() -> bool:
            steps.append(
                [
                    f"{each.filename}:{each.lineno}"
                    for each in seen
                    if "synchronizing CUDA operation" in str(each.message)
                ]
            )
            seen.clear()
            return False

        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            train(
                model,
                config,
                source,
                source,
                report=lambda *args: None,
                checkpoint_requested=stepped,
                device=device,
            )
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    assert len(steps) == STEPS - 1
    return steps[2:]


@pytest.mark.cuda
def test_synchronisations_are_seen(device):
    """The count would find one: a number that is read from the device is."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            float(torch.ones(3, device=device).sum())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert any("synchronizing CUDA operation" in str(each.message) for each in seen)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("how", [{}, {"accumulate": 2, "precision": "bfloat16"}], ids=["plain", "sparing"])
def test_a_step_waits_for_the_device_once_at_most(device, record, name, how):
    if device.type == "cpu":
        how = {key: value for key, value in how.items() if key != "precision"}
    steps = count_synchronisations(CASES[name], device, **how)
    most = max(steps, key=len)
    record.notes.append(f"synchronisations in a step of {name} {' '.join(how)}: {len(most)} at most")
    assert len(most) <= 1, "\n".join(most)


def seconds(function, repeats=20) -> float:
    """The median time of a call, its work on the device included."""
    times = []
    for _ in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[3:])


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["diffusion"])
def test_random_numbers_take_a_small_share_of_a_small_models_step(device, record, name):
    case, batch = CASES[name], 64
    keys = [(0, "step", 0, i) for i in range(batch)]
    windows = torch.randn(batch, *case.shape, device=device)
    both = Batch(states=windows, parameters=torch.ones(batch, 3, device=device))
    model = case.build(device)

    def step() -> None:
        model.loss(both, SampleGenerator(keys, device))[0].backward()
        model.zero_grad(set_to_none=True)

    def draw() -> None:
        generator = SampleGenerator(keys, device)
        generator.poisson(1.0, 1)
        generator.uniform(1)
        generator.uniform()
        generator.normal(*case.shape)

    whole, drawing = seconds(step), seconds(draw)
    kernels = launches(draw, device)
    record.notes.append(
        f"random numbers of {batch} samples: {1e3 * drawing:.2f} ms of a step's {1e3 * whole:.2f} ms "
        f"({drawing / whole:.1%}), {kernels} kernels"
    )
    assert kernels > 0
    assert kernels < batch or drawing <= SHARE * whole


def launches(function, device) -> int:
    """Kernels that a call launches."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
        function()
        torch.cuda.synchronize(device)
    return sum(each.count for each in profiled.key_averages() if each.key == "cudaLaunchKernel")
