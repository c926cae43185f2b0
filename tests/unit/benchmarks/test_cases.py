"""Ours and the plain baselines are one function: equal outputs and gradients from one state dict."""

import pytest
import torch
from benchmarks.cases import build_case

from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.transformer_config import TransformerConfig

AUTOENCODER = AutoencoderConfig(
    latent_channels=6, channels=(8, 12, 16), blocks=(1, 2, 1), patch_size=2, dropout=0.0
)
TRANSFORMER = TransformerConfig(features=32, blocks=2, heads=2, modulation=16, dropout=0.0)


@pytest.fixture(params=["autoencoder-2d", "autoencoder-3d", "transformer"])
def case(request):
    case = build_case(request.param, "demo", AUTOENCODER, TRANSFORMER)
    with torch.no_grad():  # away from the identity that networks start near
        for parameter in case.ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    case.plain.load_state_dict(case.ours.state_dict())
    return case


def gradients(network, case):
    loss = case.loss(network(*case.inputs))
    loss.backward()
    return loss, {name: parameter.grad for name, parameter in network.named_parameters()}


def test_outputs_are_equal(case):
    with torch.no_grad():
        ours, plain = case.ours(*case.inputs), case.plain(*case.inputs)
    assert (ours - plain).norm() <= 1e-5 * plain.norm()


def test_gradients_are_equal(case):
    (loss, ours), (other, plain) = gradients(case.ours, case), gradients(case.plain, case)
    torch.testing.assert_close(loss, other)
    assert ours.keys() == plain.keys()
    for name in ours:
        assert (ours[name] - plain[name]).norm() <= 1e-4 * plain[name].norm(), name


@torch.no_grad()
def test_half_precision_costs_ours_no_more(case):
    exact = case.plain(*case.inputs)
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = ((network(*case.inputs) - exact).norm() for network in (case.ours, case.plain))
    assert 0 < ours <= 1.2 * plain
