import pytest
import torch

from lola.core.errors import ConfigError
from lola.models.transformer_config import TransformerConfig


def test_the_published_models_have_the_published_sizes():
    with torch.device("meta"):
        network = TransformerConfig().build(64, 2, modulated=True)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == 223


@pytest.mark.parametrize(
    ("patch_size", "expected"), [(1, (1, 1, 1)), (16, (1, 16, 16)), ((5, 2, 4), (5, 2, 4))]
)
def test_patches(patch_size, expected):
    assert TransformerConfig(patch_size=patch_size).patches(spatial=2) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 100}, "8 --heads of even size"),
        ({"modulation": 7}, "--modulation must be even"),
        ({"patch_size": 0}, "--patch-size must be in"),
        ({"blocks": 0}, "blocks"),
        ({"dropout": -0.1}, "dropout"),
    ],
)
def test_impossible_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        TransformerConfig(**changes)


def test_patches_of_other_axes_are_refused():
    with pytest.raises(ConfigError, match="3 sizes: time and 2 grid axes"):
        TransformerConfig(patch_size=(1, 2)).build(4, 2, modulated=True)


def test_a_grid_that_patches_do_not_tile():
    config = TransformerConfig(patch_size=4)
    config.check_grid((8, 12), window=5)
    with pytest.raises(ConfigError, match="--patch-size of 4 does not tile a grid axis of 6"):
        config.check_grid((8, 6), window=5)


def test_configuration_survives_json():
    for patch_size in (2, (1, 2, 2)):
        config = TransformerConfig(patch_size=patch_size)
        assert TransformerConfig.from_json(config.to_json()) == config
