import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lola.core.config import ConfigError
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.cost import estimate_cost, optimizer_bytes, optimizer_flops
from lola.training.counting import Affine, Counts
from lola.training.hardware import Hardware
from lola.training.optim import build_optimizer

HARDWARE = Hardware(bfloat16=100.0, float32=10.0, memory=1000.0, bandwidth=50.0, utilisation=0.5, reserve=0.2)


def counts(shapes=((5,),), flops=(0, 30), activations=(10, 20), recomputed=(2, 4)):
    return Counts(shapes, Affine(*flops), Affine(*activations), Affine(*recomputed))


def training(**changes):
    values = {"steps": 7200, "batch_size": 8, "optimizer": OptimizerConfig(name="adamw"), "workers": 2}
    return TrainingConfig(**values | changes)


def test_estimate_against_hand_computed_values():
    cost = estimate_cost(counts(flops=(4, 30)), training(), 3.0, HARDWARE)
    assert cost.parameters == 5
    assert cost.flops == 2 * 4 + 8 * 30
    assert cost.memory.resident == 20 + 20 + 20 + 40
    assert cost.memory.total == 100 + 10 + 4 * 20
    assert cost.usable == 800
    assert cost.remedy == ""
    assert cost.arithmetic == pytest.approx(248 / (2 * 0.5 * 10))
    assert cost.traffic == pytest.approx((5 * 90 + 60 + 80) / 50)
    assert cost.seconds == max(cost.arithmetic, cost.traffic) == cost.arithmetic
    assert cost.read == pytest.approx(8 * 3.0 / 24.8)
    assert cost.gpu_hours == pytest.approx(2 * 7200 * 24.8 / 3600)


def test_half_precision_has_its_own_peak():
    slow, fast = (
        estimate_cost(counts(), training(precision=name), 1, HARDWARE) for name in ("float32", "bfloat16")
    )
    assert fast.arithmetic == slow.arithmetic / 10


def test_one_gpu_exchanges_nothing():
    assert estimate_cost(counts(), training(workers=1), 1, HARDWARE).memory.buckets == 0


def test_an_average_is_kept_and_moved():
    plain, averaged = (estimate_cost(counts(), training(ema=ema), 1, HARDWARE) for ema in (0.0, 0.9))
    assert averaged.memory.total - plain.memory.total == 4 * 5
    assert averaged.traffic - plain.traffic == pytest.approx(3 * 4 * 5 / 50)
    assert averaged.arithmetic == plain.arithmetic


def test_micro_batches_hold_their_own_activations_and_repeat_what_is_fixed():
    once = estimate_cost(counts(flops=(4, 30)), training(), 1, HARDWARE)
    for parts, largest in ((2, 2), (3, 2), (4, 1)):
        cost = estimate_cost(counts(flops=(4, 30)), training(accumulate=parts), 1, HARDWARE)
        assert (cost.memory.share, cost.memory.samples) == (4, largest)
        assert cost.memory.resident == once.memory.resident
        assert cost.memory.total == 100 + 10 + largest * 20
        assert cost.flops == once.flops + (parts - 1) * 2 * 4
        assert cost.traffic - once.traffic == pytest.approx((parts - 1) * (5 * 10 + 3 * 4 * 5) / 50)


def test_recomputed_blocks_keep_less_and_compute_more():
    plain, again = (estimate_cost(counts(), training(recompute=each), 1, HARDWARE) for each in (False, True))
    assert again.memory.total == 100 + 2 + 4 * 4
    assert again.flops == pytest.approx(4 / 3 * plain.flops)
    assert again.traffic == pytest.approx((4 / 3 * 5 * 90 + 60 + 80) / 50)


def test_everything_at_once():
    changes = {"recompute": True, "accumulate": 2, "ema": 0.9}
    cost = estimate_cost(counts(flops=(4, 30)), training(**changes), 1, HARDWARE)
    assert cost.memory.total == 120 + 2 + 2 * 4
    assert cost.flops == pytest.approx(4 / 3 * (2 * 2 * 4 + 8 * 30))


@pytest.mark.parametrize(
    ("changes", "activations", "recomputed", "remedy"),
    [
        ({"accumulate": 2}, (0, 350), (0, 20), ""),
        ({"accumulate": 2}, (0, 351), (0, 20), "4 micro-batches, 4 GPUs or recomputed blocks"),
        ({"accumulate": 4}, (0, 701), (0, 20), "recomputed blocks"),
        ({"recompute": True}, (0, 701), (0, 175), ""),
        ({"recompute": True}, (0, 701), (0, 176), "2 micro-batches or 3 GPUs"),
        ({"recompute": True, "accumulate": 2}, (0, 701), (0, 351), "4 micro-batches or 4 GPUs"),
        ({"recompute": True}, (0, 1), (0, 701), "a sample does not fit a GPU, even with recomputed blocks"),
        ({"ema": 0.9}, (0, 171), (0, 20), "2 micro-batches, 3 GPUs or recomputed blocks"),
    ],
)
def test_what_makes_a_saving_configuration_fit(changes, activations, recomputed, remedy):
    cost = estimate_cost(
        counts(activations=activations, recomputed=recomputed), training(**changes), 1, HARDWARE
    )
    assert cost.remedy == remedy
    assert (cost.memory.total <= cost.usable) == (not remedy)
    again = "recompute" in changes or remedy == "recomputed blocks"
    assert cost.flops == pytest.approx(8 * 30 * (4 / 3 if again else 1))


def test_remedies_fit_when_taken():
    found = counts(activations=(0, 351), recomputed=(0, 20))
    assert estimate_cost(found, training(accumulate=2), 1, HARDWARE).remedy != ""
    for changes in ({"accumulate": 4}, {"accumulate": 2, "workers": 4}, {"accumulate": 2, "recompute": True}):
        assert estimate_cost(found, training(**changes), 1, HARDWARE).remedy == "", changes


@pytest.mark.parametrize(
    ("activations", "recomputed", "remedy"),
    [
        ((0, 175), (0, 175), ""),
        ((0, 176), (0, 20), "2 micro-batches, 3 GPUs or recomputed blocks"),
        ((0, 350), (0, 300), "2 micro-batches or 4 GPUs"),
        ((0, 700), (0, 175), "4 micro-batches, 8 GPUs or recomputed blocks"),
        ((0, 701), (0, 175), "recomputed blocks"),
        ((0, 701), (0, 300), "recomputed blocks in 2 micro-batches"),
        ((0, 701), (0, 701), "a sample does not fit a GPU, even with recomputed blocks"),
        ((701, 1), (701, 1), "a sample does not fit a GPU, even with recomputed blocks"),
    ],
)
def test_what_makes_a_batch_fit(activations, recomputed, remedy):
    cost = estimate_cost(counts(activations=activations, recomputed=recomputed), training(), 1, HARDWARE)
    assert cost.memory.resident == 100
    assert cost.remedy == remedy
    again = remedy.startswith(("recomputed", "a sample"))
    assert cost.flops == pytest.approx(8 * 30 * (4 / 3 if again else 1))


@pytest.mark.parametrize("name", ["adamw", "adam", "psgd", "soap", "muon"])
@pytest.mark.parametrize("largest", [4096, 20])
def test_optimiser_states_have_the_estimated_size(name, largest):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 40), nn.Conv2d(8, 16, 3), nn.Conv3d(6, 10, 3), nn.Linear(30, 1))
    config = OptimizerConfig(name=name, max_dimension=largest)
    parameters = list(network.parameters())
    optimizer = build_optimizer(config, parameters)
    for _ in range(3):
        for p in parameters:
            p.grad = torch.randn_like(p)
        optimizer.step()
    held = {}
    _collect(optimizer.state_dict()["state"], held)
    for p in parameters:
        held.pop(p.untyped_storage().data_ptr(), None)
    expected = optimizer_bytes(config, tuple(tuple(p.shape) for p in parameters))
    assert sum(held.values()) == pytest.approx(expected, rel=0.02)


@pytest.mark.filterwarnings("ignore")
def test_the_step_of_psgd_takes_five_copies_of_the_weights():
    """That much is free once activations are gone; where it does not fit, smaller batches do not help."""
    config = training(optimizer=OptimizerConfig(name="psgd"))
    cost = estimate_cost(counts(activations=(0, 1)), config, 1, HARDWARE)
    assert cost.memory.total == cost.memory.resident + 5 * 20
    more = estimate_cost(counts(activations=(0, 100)), config, 1, HARDWARE)
    assert more.memory.total == more.memory.resident + 400
    assert estimate_cost(counts(), config, 1, HARDWARE.replace(memory=200.0)).remedy.startswith(
        "another optimiser"
    )


def test_operations_of_muon_are_those_of_its_products():
    weights = [nn.Parameter(torch.ones(shape)) for shape in ((6, 40), (40, 6), (8, 3, 2, 2), (7,))]
    config = OptimizerConfig(name="muon")
    optimizer = build_optimizer(config, weights)
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    expected = optimizer_flops(config, tuple(tuple(weight.shape) for weight in weights))
    assert counter.get_total_flops() == expected
    two = training(optimizer=config)
    plain = estimate_cost(counts(shapes=((6, 40),)), two.replace(optimizer=OptimizerConfig()), 1, HARDWARE)
    cost = estimate_cost(counts(shapes=((6, 40),)), two, 1, HARDWARE)
    more = 5 * (4 * 36 * 40 + 2 * 216) / (0.5 * 100)
    assert cost.arithmetic == pytest.approx(plain.arithmetic + more)


def _collect(value, held):
    """Bytes of every storage of tensors within nested containers, counters apart."""
    if isinstance(value, torch.Tensor):
        if value.numel() > 1:
            held[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    elif isinstance(value, dict):
        for each in value.values():
            _collect(each, held)
    elif isinstance(value, list | tuple):
        for each in value:
            _collect(each, held)


def test_impossible_hardware_is_refused():
    for wrong in ({"utilisation": 0}, {"utilisation": 1.1}, {"reserve": 1}, {"memory": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Hardware(**wrong)
