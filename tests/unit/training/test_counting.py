import pytest
import torch
from torch import nn

from lola.data.state import Batch
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig
from lola.nn.attention import SelfAttention
from lola.nn.transformer import TransformerBlock
from lola.training.counting import _Operations, count_step


class Model(nn.Module):
    """A network as a model: its mean output is the loss. Its input needs no gradient."""

    def __init__(self, network, shape):
        super().__init__()
        self.network, self.shape = network, shape

    def loss(self, batch, generator):
        return self.network(batch.states.view(len(batch), *self.shape)).mean(), {}


def counts(build, shape, precision="float32"):
    return count_step(lambda: Model(build(), shape), (1, 1, torch.Size(shape).numel()), 1, precision)


def test_a_linear_map():
    found = counts(lambda: nn.Linear(6, 10), (7, 6))
    forward = 2 * 7 * 6 * 10
    assert found.flops.per_sample == 2 * forward  # the gradient of the weights; the input has none
    assert found.flops.fixed == 0
    assert found.parameters == 6 * 10 + 10
    assert sorted(found.shapes) == [(10,), (10, 6)]
    assert found.activations.per_sample == 4 * 7 * 6
    assert found.activations.fixed == 0


def test_two_linear_maps_in_half_precision():
    build = lambda: nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 4))  # noqa: E731
    found = counts(build, (7, 6), "bfloat16")
    first, second = 2 * 7 * 6 * 10, 2 * 7 * 10 * 4
    assert found.flops.per_sample == 2 * first + 3 * second
    # Inputs of both maps in half precision; so are, whatever the batch, the weights of the second
    assert found.activations.per_sample == 2 * 7 * (6 + 10)
    assert found.activations.fixed == 2 * 10 * 4


@pytest.mark.parametrize(("kind", "grid"), [(nn.Conv2d, (8, 12)), (nn.Conv3d, (4, 6, 8))])
def test_convolutions(kind, grid):
    build = lambda: nn.Sequential(kind(3, 5, 3, padding=1), kind(5, 4, 3, padding=1))  # noqa: E731
    found = counts(build, (3, *grid))
    cells, taps = torch.Size(grid).numel(), 3 ** len(grid)
    first, second = 2 * cells * taps * 3 * 5, 2 * cells * taps * 5 * 4
    assert found.flops.per_sample == 2 * first + 3 * second
    assert found.activations.per_sample == 4 * cells * (3 + 5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_attention_is_fused(precision):
    n, d, heads = 64, 32, 4
    found = counts(lambda: SelfAttention(d, heads, qk_norm=False), (n, d), precision)
    projections = 2 * n * d * 3 * d * 2 + 2 * n * d * d * 3  # qkv: no gradient of the input; out: both
    products = 2 * n * n * d
    # Two products forwards; backwards four gradients, and one product again that was not kept
    assert found.flops.per_sample == projections + (2 + 5) * products
    width = 4 if precision == "float32" else 2
    # x, the projection, what attention gives and their logsumexp: no matrix of n x n
    assert found.activations.per_sample <= width * n * d * 6 + 4 * heads * n + 64


AUTOENCODER = AutoencoderConfig(latent_channels=4, channels=(8, 16), blocks=(2, 2))
TRANSFORMER = TransformerConfig(features=32, blocks=3, heads=2, modulation=16)
EMULATOR = {"channels": 4, "parameters": 3, "spatial": 2, "window": 5}


def autoencoder(grid, precision="float32"):
    build = lambda: AUTOENCODER.build(channels=3, spatial=len(grid))  # noqa: E731
    return count_step(build, (3, 1, *grid), 3, precision)


def test_an_autoencoder_scales_with_the_grid():
    small, large = autoencoder((16, 16)), autoencoder((32, 64))
    assert large.shapes == small.shapes
    assert large.flops.per_sample == 8 * small.flops.per_sample
    assert large.activations.per_sample == pytest.approx(8 * small.activations.per_sample, rel=1e-2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [DiffusionConfig, NeuralSolverConfig])
def test_emulators(config, precision):
    build = lambda: config(network=TRANSFORMER).build(**EMULATOR)  # noqa: E731
    found = count_step(build, (4, 5, 4, 4), 3, precision)
    real = build()
    assert found.parameters == sum(p.numel() for p in real.parameters())
    tokens, width = 5 * 4 * 4, 32
    block = 2 * tokens * width * width * (4 + 8) + 4 * tokens**2 * width  # a forward pass
    assert 3 * 3 * block < found.flops.per_sample < 3 * 3 * block * 1.3
    assert found.recomputed.per_sample < found.activations.per_sample / 2
    assert found.flops.fixed > 0  # the embedding of positions


def test_blocks_of_every_network_recompute():
    unet = UNetConfig(channels=(16, 32), blocks=(2, 2), modulation=16, dropout=0.0)
    emulator = lambda: DiffusionConfig(network=unet).build(**EMULATOR)  # noqa: E731
    tokens = TransformerAutoencoderConfig(latent_channels=4, features=32, heads=2, patch_size=4)
    encoder = lambda: tokens.build(channels=3, spatial=2)  # noqa: E731
    for build, states in ((emulator, (4, 5, 8, 8)), (encoder, (3, 1, 16, 16))):
        found = count_step(build, states, 3, "float32")
        assert found.recomputed.per_sample < found.activations.per_sample / 2


def test_half_precision_takes_less():
    full, half = autoencoder((32, 32)), autoencoder((32, 32), "bfloat16")
    assert half.flops == full.flops
    assert half.activations.per_sample < full.activations.per_sample


def test_saved_bytes_are_those_of_a_real_step():
    """Float32 on the CPU saves what the meta device says, where neither attention nor dropout differ."""
    build = lambda: AUTOENCODER.replace(dropout=0.0).build(channels=3, spatial=2)  # noqa: E731
    found = count_step(build, (3, 1, 16, 16), 3, "float32")
    model = build()
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        batch = Batch(states=torch.randn(3, 3, 1, 16, 16), parameters=torch.zeros(3, 3))
        loss = model.loss(batch, None)
    saved = sum(size for size, _ in storages.values())
    assert saved == pytest.approx(found.activations.at(3), rel=0.02), loss


def test_recomputed_blocks_keep_their_inputs_and_one_block():
    features, tokens = 32, 24
    block = lambda: TransformerBlock(features, 2, 1, 0, rope=False)  # noqa: E731

    class Stack(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.blocks = nn.ModuleList(block() for _ in range(depth))

        def forward(self, x):
            h = x
            for each in self.blocks:
                x = each(x, h, None, None)
            return x

    four, eight = (counts(lambda depth=depth: Stack(depth), (tokens, features)) for depth in (4, 8))
    assert eight.recomputed.per_sample - four.recomputed.per_sample == 4 * 4 * tokens * features
    assert eight.activations.per_sample - four.activations.per_sample > 10 * 4 * tokens * features
    one = eight.activations.per_sample - four.activations.per_sample
    assert four.recomputed.per_sample < one / 4 + 6 * 4 * tokens * features


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "model", [DiffusionConfig(network=TRANSFORMER), NeuralSolverConfig(network=TRANSFORMER)]
)
def test_what_is_looked_up_is_what_is_computed(monkeypatch, model, precision):
    """The same counts whether or not an operation on the same shapes was seen before."""
    build = lambda: model.build(**EMULATOR)  # noqa: E731
    states = (4, 5, 8, 8)
    first = count_step(build, states, 3, precision)
    assert count_step(build, states, 3, precision) == first
    assert any(made.outputs for made in _Operations.cache.values())

    class Forgetful(dict):
        def get(self, key, default=None):
            return default

    monkeypatch.setattr(_Operations, "cache", Forgetful())
    assert count_step(build, states, 3, precision) == first


def test_an_operation_that_shares_memory_is_not_looked_up():
    x = torch.empty(4, 6, device="meta")
    with _Operations():
        for _ in range(2):
            assert x.view(24).untyped_storage()._cdata == x.untyped_storage()._cdata
            assert (x + 1).untyped_storage()._cdata != x.untyped_storage()._cdata
            assert x.mul_(2) is x
