import pytest
import torch

from lola.core.config import Config
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.emulation.emulator import Emulator
from lola.emulation.sampling_config import SamplerConfig
from lola.models.kinds import KINDS, kind_of, require_kind, sampled_kind
from lola.models.transformer_config import TransformerConfig

NETWORK = TransformerConfig(features=16, blocks=1, heads=2, modulation=8, dropout=0.0)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_a_kind_is_found_by_its_configuration(kind):
    config = kind.config(network=NETWORK)
    assert require_kind(config) is kind
    assert kind_of(config.build(2, 3, 2, 4).config) is kind
    assert kind_of(NETWORK) is None
    described = {"type": type(config).__name__, **config.to_json()}
    assert (sampled_kind(described) is kind) == kind.sampler_steps
    assert Config.classes[described["type"]].from_json(described) == config


def test_every_kind_is_what_the_table_says(kind):
    """It trains, and rolls out as an ensemble whose members differ if it is stochastic."""
    torch.manual_seed(0)
    model = kind.config(network=NETWORK).build(2, 3, 2, 4)
    batch = Batch(states=torch.randn(3, 2, 4, 4, 4), parameters=torch.randn(3, 3))
    loss, diagnostics = model.loss(batch, SampleGenerator([(0, i) for i in range(3)]))
    assert loss.isfinite()
    assert all(name.startswith("unknown_") for name in diagnostics)
    with torch.no_grad():
        for weight in model.parameters():  # what starts at zero differs later on
            weight.add_(0.1 * torch.randn_like(weight))
    emulator = Emulator(model=model, sampler=SamplerConfig(steps=2))
    context = torch.randn(1, 2, 1, 4, 4).expand(2, -1, -1, -1, -1)
    keys = [(0, member) for member in range(2)]
    one, other = torch.cat(list(emulator.rollout(context, torch.zeros(2, 3), 6, keys)), dim=2)
    assert one.isfinite().all()
    assert torch.allclose(one, other) != kind.stochastic
    assert emulator.stochastic == kind.stochastic
