import copy

import pytest
import torch

from lola.models.autoencoder_config import AutoencoderConfig
from lola.nn.recompute import Block
from lola.nn.transformer import Transformer
from lola.nn.unet import UNet


def autoencoder():
    config = AutoencoderConfig(
        latent_channels=4, channels=(8, 16), blocks=(2, 2), attention_heads=((1, 2),), dropout=0.3
    )
    return config.build(3, 2), (torch.randn(2, 3, 16, 16),)


def transformer():
    network = Transformer(4, 2, 8, features=16, blocks=3, heads=2, patch_size=(1, 2, 2), dropout=0.3)
    return network, (torch.randn(2, 4, 3, 8, 8), torch.randn(2, 8))


def unmodulated():
    network = Transformer(4, 2, 0, features=16, blocks=3, heads=2, patch_size=(1, 2, 2), dropout=0.3)
    return network, (torch.randn(2, 4, 3, 8, 8),)


def unet():
    network = UNet(
        4,
        2,
        8,
        channels=(8, 16),
        blocks=(2, 2),
        heads=(0, 2),
        kernel_size=(1, 3, 3),
        stride=(1, 2, 2),
        dropout=0.3,
    )
    return network, (torch.randn(2, 4, 3, 8, 8), torch.randn(2, 8))


def recomputing(network):
    copied = copy.deepcopy(network)
    blocks = [module for module in copied.modules() if isinstance(module, Block)]
    assert blocks
    for block in blocks:
        block.recompute = True
    return copied


def saved(network, inputs):
    """Elements that are kept for the backward pass, parameters apart; each storage counts once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(*inputs)
    return sum(kept.values()), output


@pytest.mark.parametrize("build", [autoencoder, transformer, unmodulated, unet])
def test_gradients_are_the_same_with_dropout(build):
    torch.manual_seed(0)
    plain, inputs = build()
    copied = recomputing(plain)
    results = []
    for network in (plain, copied):
        torch.manual_seed(1)
        loss = network(*inputs).square().sum()
        after = torch.rand(())
        loss.backward()
        results.append((loss.detach(), after, [parameter.grad for parameter in network.parameters()]))
    (loss, after, gradients), (loss_twin, after_twin, gradients_twin) = results
    assert torch.equal(loss, loss_twin)
    assert torch.equal(after, after_twin)
    for a, b in zip(gradients, gradients_twin, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("build", [autoencoder, transformer, unet])
def test_less_is_kept_for_the_backward_pass(build):
    plain, inputs = build()
    much, _ = saved(plain, inputs)
    little, output = saved(recomputing(plain), inputs)
    assert little < 0.5 * much
    output.sum().backward()


def test_nothing_is_kept_or_recomputed_without_gradients():
    network, inputs = transformer()
    network = recomputing(network.eval())
    with torch.no_grad():
        kept, output = saved(network, inputs)
    assert kept == 0
    assert not output.requires_grad
