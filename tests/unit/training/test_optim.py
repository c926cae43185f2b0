"""Muon against a singular value decomposition, torch's Muon and torch's AdamW; PSGD packed and not."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lola.training.config import OptimizerConfig
from lola.training.optim import build_optimizer, fast_products, set_learning_rate

RATE = 1e-2
SHAPES = [(6, 20), (20, 6), (12, 12), (8, 3, 3, 3), (10, 2, 2, 2, 2), (1, 5), (5, 1)]


def updates(config, weights, gradients, rates=(RATE,)):
    """What steps at some rates change weights by, with the same gradients each time."""
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    optimizer = build_optimizer(config, parameters)
    for rate in rates:
        torch.manual_seed(0)
        set_learning_rate(optimizer, rate)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [(parameter - weight).detach() for parameter, weight in zip(parameters, weights, strict=True)]


def muon(**changes):
    return OptimizerConfig(name="muon", learning_rate=1.0, **changes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", SHAPES)
def test_muon_s_updates_are_orthogonal_with_the_size_of_adam_s(shape):
    torch.manual_seed(1)
    gradient = torch.randn(shape)
    (found,) = updates(muon(), [torch.zeros(shape)], [gradient])
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    expected = -RATE * 0.2 * max(u.shape[0], v.shape[1]) ** 0.5 * (u @ v)
    found = found.flatten(1)
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.98
    assert float(found.norm()) == pytest.approx(float(expected.norm()), rel=0.1)
    assert float(expected.square().mean().sqrt()) == pytest.approx(0.2 * RATE)


@pytest.mark.filterwarnings("ignore")
def test_muon_follows_torch_s_where_that_takes_the_shape():
    torch.manual_seed(2)
    weight, gradient = torch.randn(6, 20), torch.randn(6, 20)
    (found,) = updates(muon(weight_decay=0.1), [weight], [gradient], [RATE, RATE / 2])
    other = nn.Parameter(weight.clone())
    reference = torch.optim.Muon([other], momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for rate in (RATE, RATE / 2):
        other.grad = gradient.clone()
        reference.param_groups[0]["lr"] = rate
        reference.step()
    expected = (other - weight).detach()
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.97
    assert float(found.norm()) == pytest.approx(float(expected.norm()), rel=0.2)


@pytest.mark.filterwarnings("ignore")
def test_parameters_of_one_axis_take_adamw_s_updates_and_weight_decay_is_adamw_s():
    torch.manual_seed(3)
    vector, matrix = torch.randn(7), torch.randn(4, 9)
    gradients, rates = [torch.randn(7), torch.zeros(4, 9)], [RATE, RATE / 2, RATE / 4]
    found = updates(muon(weight_decay=0.1), [vector, matrix], gradients, rates)
    adamw = OptimizerConfig(name="adamw", learning_rate=1.0, weight_decay=0.1)
    expected = updates(adamw, [vector, matrix], gradients, rates)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_takes_one_kernel_a_step_on_gpus_alone(name):
    config = OptimizerConfig(name=name, weight_decay=0.1)
    with FakeTensorMode():
        on_gpu = build_optimizer(config, [nn.Parameter(torch.empty(3, device="cuda"))])
    on_cpu = build_optimizer(config, [nn.Parameter(torch.empty(3))])
    assert on_gpu.defaults["fused"] is True
    assert on_cpu.defaults["fused"] is None
    assert type(on_gpu) is type(on_cpu)
    assert on_gpu.defaults["betas"] == on_cpu.defaults["betas"] == config.betas


def test_fast_products_end_with_their_context():
    matmul, einsum = torch.backends.cuda.matmul, torch.backends.opt_einsum
    before = matmul.allow_tf32, einsum.strategy
    psgd, soap = (OptimizerConfig(name=name) for name in ("psgd", "soap"))

    @fast_products(psgd, "bfloat16")
    def fail():
        assert (matmul.allow_tf32, einsum.strategy) == (True, "greedy")
        raise RuntimeError("of a step")

    with pytest.raises(RuntimeError, match="of a step"):
        fail()
    assert (matmul.allow_tf32, einsum.strategy) == before
    with fast_products(psgd, "float32"):
        assert (matmul.allow_tf32, einsum.strategy) == (before[0], "greedy")
    with fast_products(soap, "bfloat16"):
        assert (matmul.allow_tf32, einsum.strategy) == before


@pytest.mark.filterwarnings("ignore")
def test_psgd_s_preconditioner_is_the_same_packed_or_not():
    """Checkpoints of packed ones go on as they are."""
    shapes = [(6, 5), (8, 3, 3, 3), (7,)]
    torch.manual_seed(1)
    weights, gradients = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    config = OptimizerConfig(name="psgd", learning_rate=RATE, max_dimension=64)

    def train(packed):
        parameters = [nn.Parameter(weight.clone()) for weight in weights]
        optimizer = build_optimizer(config, parameters)
        optimizer.param_groups[0]["store_triu_as_line"] = packed
        states = []
        for step in range(4):
            torch.manual_seed(step)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient * (step + 1)
            optimizer.step()
            states.append(
                (copy.deepcopy(optimizer.state_dict()), [each.detach().clone() for each in parameters])
            )
        return states

    packed, dense = train(True), train(False)
    for a, b in zip(packed[-1][1], dense[-1][1], strict=True):
        torch.testing.assert_close(a, b)
    state, values = packed[1]
    parameters = [nn.Parameter(value) for value in values]
    optimizer = build_optimizer(config, parameters)
    optimizer.load_state_dict(state)
    for step in (2, 3):
        torch.manual_seed(step)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient * (step + 1)
        optimizer.step()
    for a, b in zip(packed[-1][1], parameters, strict=True):
        torch.testing.assert_close(a, b.detach())
