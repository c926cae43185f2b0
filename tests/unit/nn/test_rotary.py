import pytest
import torch

from lola.nn.embedding import coordinates
from lola.nn.rotary import _rotate_real, normalise, rotate, rotations


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def features(*shape, **options):
    """A query and a key of two heads, sliced from a larger tensor as attention does."""
    return torch.randn(*shape[:-1], 3, 2, shape[-1], **options)[:, :, :2]


def test_rotation_rotates_consecutive_pairs_by_the_angle():
    theta = torch.tensor([[0.5, -0.2], [0.1, 0.3]])
    p = torch.tensor([[2.0, 3.0]])
    x = torch.randn(1, 1, 1, 1, 4)
    y = rotate(x, rotations(p, theta, heads=1))
    rotated = torch.view_as_complex(x.unflatten(-1, (2, 2))) * torch.exp(1j * (p @ theta))
    torch.testing.assert_close(y, torch.view_as_real(rotated).flatten(-2))


def test_heads_rotate_by_their_own_angles():
    theta, p = torch.randn(2, 6), coordinates((2, 3), torch.device("cpu"))
    x = features(2, 6, 6)
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        alone = rotate(x[:, :, :, head : head + 1], rotations(p, theta[:, part], heads=1))
        torch.testing.assert_close(rotate(x, rotations(p, theta, heads=2))[:, :, :, head : head + 1], alone)


def test_products_depend_on_relative_positions_alone():
    theta = torch.randn(2, 8)
    p = coordinates((3, 4), torch.device("cpu"))
    x = torch.randn(1, 1, 2, 2, 8).expand(1, 12, 2, 2, 8)
    products = []
    for positions in (p, p + torch.tensor([5.0, -7.0])):
        q, k = rotate(x, rotations(positions, theta, heads=2)).transpose(1, 3).unbind(2)
        products.append(q @ k.mT)
    torch.testing.assert_close(*products, atol=1e-4, rtol=1e-4)


def test_normalised_features_have_a_unit_root_mean_square():
    rotation = rotations(coordinates((5,), torch.device("cpu")), torch.randn(1, 8), heads=2)
    y = rotate(3 * features(2, 5, 8), rotation, norm=True)
    torch.testing.assert_close(y.square().mean(dim=-1), torch.ones(2, 5, 2, 2))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("learned", [True, False])
def test_gradients_are_those_of_finite_differences(norm, learned):
    x = features(2, 3, 4, dtype=torch.float64).requires_grad_()
    theta = torch.randn(1, 4, dtype=torch.float64, requires_grad=learned)
    p = torch.arange(3.0, dtype=torch.float64)[:, None]
    assert torch.autograd.gradcheck(lambda x, theta: rotate(x, rotations(p, theta, 2), norm), (x, theta))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [True, False])
def test_what_a_compiler_sees_is_the_same(dtype, norm):
    rotation = rotations(coordinates((6,), torch.device("cpu")), torch.randn(1, 8), heads=2).requires_grad_()
    x = features(2, 6, 8, dtype=dtype).requires_grad_()
    g = torch.randn(2, 6, 2, 2, 8, dtype=dtype)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    results = []
    for y in (rotate(x, rotation, norm), _rotate_real(normalise(x) if norm else x, rotation)):
        assert y.dtype == dtype
        results.append((y, *torch.autograd.grad(y, (x, rotation), g)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotations_without_gradients_are_those_with(norm, dtype):
    rotation = rotations(coordinates((6,), torch.device("cpu")), torch.randn(1, 8), heads=2)
    x = features(2, 6, 8, dtype=dtype)
    with torch.no_grad():
        inferred = rotate(x, rotation, norm)
    assert torch.equal(inferred, rotate(x.requires_grad_(), rotation, norm))


def test_angles_stay_exact_under_autocast():
    theta, p = torch.rand(1, 4), torch.arange(100.0)[:, None]
    expected = rotations(p, theta, 2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(rotations(p, theta, 2), expected)
    assert rotations(p, theta.bfloat16(), 2).dtype == torch.float32
