import pytest
import torch

from lola.core.errors import ConfigError
from lola.models.unet_config import UNetConfig


@pytest.mark.parametrize(("stride", "expected"), [(2, (1, 2, 2)), ((2, 1, 4), (2, 1, 4))])
def test_a_single_stride_leaves_time_alone(stride, expected):
    assert UNetConfig(stride=stride).strides(spatial=2) == expected


@pytest.mark.parametrize(("size", "expected"), [(3, (3, 3, 3)), ((1, 5, 3), (1, 5, 3))])
def test_a_single_kernel_size_is_that_of_time_too(size, expected):
    assert UNetConfig(kernel_size=size).kernels(spatial=2) == expected


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_the_defaults_build(spatial):
    with torch.device("meta"):
        network = UNetConfig(attention_heads=((2, 8),)).build(16, spatial, modulated=True)
    assert network.down[0].into.weight.shape == (64, 33 + spatial, *[3] * (1 + spatial))
    assert network.project_out.weight.shape[0] == 16
    assert sum(block.attention is not None for stage in network.down for block in stage.blocks) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": (1,)}, "levels"),
        ({"modulation": 7}, "--modulation must be even"),
        ({"kernel_size": (3, 2, 3)}, "--kernel-size must be odd"),
        ({"stride": 0}, "stride"),
        ({"ffn_factor": 0}, "--ffn-factor"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention_heads": ((3, 4),)}, "level 3"),
        ({"norm": "group", "channels": (64, 72, 256)}, "72 do not split into 16 groups"),
    ],
)
def test_impossible_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        UNetConfig(**changes)


def test_sizes_of_other_axes_are_refused():
    with pytest.raises(ConfigError, match="3 sizes: time and 2 grid axes"):
        UNetConfig(stride=(1, 2)).build(4, 2, modulated=True)


def test_a_grid_that_does_not_fit():
    UNetConfig().check_grid((8, 12), window=5)
    with pytest.raises(ConfigError, match="down-sampling 4 does not divide a grid axis of 6"):
        UNetConfig().check_grid((8, 6), window=5)
    with pytest.raises(ConfigError, match="around 1 cells"):
        UNetConfig(kernel_size=5, periodic=True).check_grid((8, 4), window=5)


def test_configuration_survives_json():
    for stride in (2, (1, 2, 2)):
        config = UNetConfig(stride=stride, attention_heads=((1, 4),))
        assert UNetConfig.from_json(config.to_json()) == config
