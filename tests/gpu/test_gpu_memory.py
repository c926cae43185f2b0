"""The cost model's memory against what training takes, for models of the `paper` preset at a GPU's batch.

Training is eager, which the cost model describes; compiled training must take no more memory.
"""

import functools

import pytest
import torch
from benchmarks.paper import MODELS
from cases import Waves

from lola.training.cost import estimate_cost
from lola.training.counting import count_step
from lola.training.hardware import Hardware
from lola.training.loop import train

MARGIN = 0.2
STEPS = 2
COMPILED = "rayleigh_benard diffusion f32c64"
pytestmark = pytest.mark.cuda


class Constant(Waves):
    """A source that repeats one window: only its size matters."""

    def __len__(self):
        return 64

    def read(self, index, key):
        return self.window, self.label

    @functools.cached_property
    def window(self):
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0))

    @functools.cached_property
    def label(self):
        return torch.ones(self.parameters)


@functools.cache
def forecast(name):
    """Bytes by the cost model, and their parts."""
    case = MODELS[name]
    build = functools.partial(case.model.build, **case.sizes)
    counts = count_step(build, case.shape, case.sizes.get("parameters", 0), case.training.precision)
    return estimate_cost(counts, case.of_a_gpu, 0, Hardware()).memory


def measure(name, device, compiled):
    case = MODELS[name]
    training = case.of_a_gpu.replace(
        steps=STEPS, report_every=STEPS, valid_samples=1, compile=compiled, warmup=0, cpus=1
    )
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.device(device):
        model = case.model.build(**case.sizes)
    source = Constant(case.shape, case.sizes.get("parameters", 0))
    metrics = {}
    train(
        model,
        training,
        source,
        source,
        report=lambda step, values, save: metrics.update(values),
        device=device,
    )
    assert metrics["train/skipped"] == 0
    return metrics["train/memory_bytes"] - before


def fits(name, record):
    """Skip models that do not fit this GPU."""
    torch.cuda.empty_cache()
    needed, (free, _) = forecast(name).total, torch.cuda.mem_get_info()
    if needed * (1 + MARGIN) > free:
        reason = f"may need {needed * (1 + MARGIN) / 1e9:.0f} GB, of which {free / 1e9:.0f} are free"
        record.notes.append(f"memory of {name}: not measured, {reason}")
        pytest.skip(reason)


@pytest.mark.parametrize("name", MODELS)
def test_memory_is_as_forecast(device, record, name):
    fits(name, record)
    memory = forecast(name)
    taken = measure(name, device, compiled=False)
    record.notes.append(
        f"memory of {name}: {taken / 1e9:.2f} GB taken, {memory.total / 1e9:.2f} GB forecast "
        f"({memory.activations.at(memory.samples) / 1e9:.2f} of activations), {taken / memory.total - 1:+.1%}"
    )
    assert abs(taken / memory.total - 1) <= MARGIN


def test_compiled_training_takes_no_more_than_forecast(device, record):
    fits(COMPILED, record)
    memory = forecast(COMPILED)
    taken = measure(COMPILED, device, compiled=True)
    record.notes.append(
        f"memory of {COMPILED}, compiled: {taken / 1e9:.2f} GB taken, {memory.total / 1e9:.2f} GB forecast, "
        f"{taken / memory.total - 1:+.1%}"
    )
    assert taken <= (1 + MARGIN) * memory.total
