import dataclasses
import math

import pytest
import torch

from lola.core.errors import DataError
from lola.data.description import EULER, RAYLEIGH_BENARD, TURBULENCE_GRAVITY_COOLING
from lola.data.transforms import TRANSFORMS, Standardisation


@pytest.mark.parametrize("system", [EULER, RAYLEIGH_BENARD, TURBULENCE_GRAVITY_COOLING])
def test_inverse_is_exact_and_inputs_are_kept(system):
    generator = torch.Generator().manual_seed(0)
    shape = (2, len(system.channels), 3, *[4] * system.dimensions)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    x[..., 0] *= 1e-7
    standardise = Standardisation(system)
    kept = x.clone()
    y = standardise.forward(x)
    kept_y = y.clone()
    torch.testing.assert_close(standardise.inverse(y), x, rtol=1e-12, atol=1e-14)
    assert torch.equal(x, kept)
    assert torch.equal(y, kept_y)


def test_values_of_euler():
    x = torch.tensor([2.0, 0.5, 0.25, -0.3, 0.4])
    expected = [
        (torch.log(torch.tensor(3.0)) - 1.20) / 0.51,
        (torch.log(torch.tensor(1.5)) - 0.60) / 0.27,
        (torch.log(torch.tensor(1.25)) - 0.58) / 0.29,
        torch.tensor(-0.3 / 0.53),
        torch.tensor(0.4 / 0.52),
    ]
    torch.testing.assert_close(Standardisation(EULER).forward(x, axis=0), torch.stack(expected))


def test_channels_may_be_along_any_axis():
    standardise = Standardisation(EULER)
    x = torch.rand(7, 5, 3, 4, 4)
    y = standardise.forward(x)
    assert torch.equal(standardise.forward(x.movedim(1, -1), axis=-1), y.movedim(1, -1))
    assert torch.equal(standardise.forward(x[:, :, 0], axis=1), y[:, :, 0])
    assert torch.equal(standardise.inverse(y.movedim(1, 0), axis=0), standardise.inverse(y).movedim(1, 0))


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("log", [1.0, math.e, 1 / math.e], [0.0, 1.0, -1.0]),
        ("arcsinh", [math.sinh(1), 3.0, -3.0], [1.0, math.log(3 + 10**0.5), -math.log(3 + 10**0.5)]),
    ],
)
def test_other_transforms_of_published_runs(name, x, y):
    x, y = torch.tensor(x), torch.tensor(y)
    transform, inverse = TRANSFORMS[name]
    torch.testing.assert_close(transform(x), y)
    torch.testing.assert_close(inverse(transform(x)), x)


def test_gradients_pass():
    x = torch.rand(5, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    standardise = Standardisation(EULER)
    assert torch.autograd.gradcheck(lambda x: standardise.inverse(standardise.forward(x) * 2), (x,))


@pytest.mark.parametrize(
    ("system", "channel", "value", "name"),
    [
        (EULER, 1, -1.0, "density"),
        (EULER, 2, float("nan"), "pressure"),
        (TURBULENCE_GRAVITY_COOLING, 0, -1e-5, "density"),
    ],
)
def test_values_without_a_logarithm_are_refused(system, channel, value, name):
    x = torch.ones(len(system.channels), 1, *[2] * system.dimensions)
    x[channel].view(-1)[1] = value
    with pytest.raises(DataError, match=name):
        Standardisation(system).forward(x)


def test_a_momentum_may_have_any_sign():
    x = torch.full((5, 1, 2, 2), -0.9)
    assert Standardisation(EULER).forward(x).isfinite().all()


@pytest.mark.parametrize(
    ("std", "message"), [(1e-60, "deviation of energy is 1e-60"), (1e39, "1e\\+39, beyond")]
)
def test_statistics_that_float32_cannot_hold_are_refused(std, message):
    with pytest.raises(DataError, match=message):
        Standardisation(dataclasses.replace(EULER, std=(std, *EULER.std[1:])))


def test_variances_of_gaussian_channels_in_physical_units():
    system = dataclasses.replace(EULER, mean=(0.2,) * 5, std=(0.6,) * 5)
    found = Standardisation(system).variances()
    lognormal = (math.exp(0.36) - 1) * math.exp(0.4 + 0.36)
    transforms = {"identity": 0.36, "log1p": lognormal}
    expected = [transforms[name] for name in system.transforms]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=0)
