import json

import pytest
import torch
from benchmarks import training
from benchmarks.cases import TimedCase
from benchmarks.configs import TrainingBenchmark
from benchmarks.training import operations, run_training_benchmark, training_table

from lola.core.errors import ConfigError
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.transformer_config import TransformerConfig

CONFIG = TrainingBenchmark(
    autoencoder=AutoencoderConfig(
        latent_channels=4, channels=(8, 8), blocks=(1, 1), patch_size=4, dropout=0.0
    ),
    transformer=TransformerConfig(features=16, blocks=1, heads=2, modulation=8, dropout=0.0),
    networks=("autoencoder-2d", "transformer"),
    sizes=("demo",),
    rounds=2,
)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def result(monkeypatch, lines):
    monkeypatch.setattr(
        training,
        "roofline",
        lambda rounds, clock: {name: {"product": 100.0} for name in ("float32", "bfloat16")},
    )
    return run_training_benchmark(CONFIG, progress=lines.append)


def test_every_sample_is_kept_and_survives_json(result):
    assert json.loads(json.dumps(result)) == result
    autoencoder, transformer = result["cases"]
    assert len(autoencoder["variants"]) == 6
    assert len(transformer["variants"]) == 4
    for case in result["cases"]:
        for variant in case["variants"]:
            assert len(variant["seconds"]) == 2
            assert min(variant["seconds"]) > 0


def test_progress_is_logged(result, lines):
    assert lines == [
        "roofline",
        "autoencoder-2d demo",
        "  2 rounds of 6 variants",
        "transformer demo",
        "  2 rounds of 4 variants",
    ]


def test_compiling_is_logged_with_its_time(monkeypatch):
    monkeypatch.setattr(training, "roofline", lambda rounds, clock: {})
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: None)
    lines = []
    config = CONFIG.replace(networks=("transformer",), precisions=("float32",), modes=("compiled",))
    run_training_benchmark(config, progress=lines.append)
    assert lines[2:] == ["  plain float32 compiled in 0 s", "  ours float32 compiled in 0 s", lines[-1]]


def test_the_table_compares_with_the_plain_writing_alike(result):
    for case in result["cases"]:
        for variant in case["variants"]:
            fast = variant["writing"] == "ours"
            variant["seconds"] = [0.1, 0.1] if fast else [0.3, 0.3]
    rows = [
        line.split("|")[1:-1] for line in training_table(result).splitlines() if line.startswith("| auto")
    ]
    ratios = {(row[2].strip(), row[4].strip()): row[6].strip() for row in rows}
    assert ratios["bfloat16", "ours"] == "3.00"
    assert ratios["float32", "plain"] == "1.00"


def test_operations_count_products_and_convolutions_forwards_and_backwards():
    network = torch.nn.Sequential(torch.nn.Linear(8, 4, bias=False), torch.nn.SiLU(), torch.nn.Linear(4, 2))
    case = TimedCase(ours=network, plain=network, inputs=(torch.randn(3, 8),), loss=torch.Tensor.sum)
    # Forwards, weights' gradients, and that of what lies between
    assert operations(case) == 2 * 3 * (2 * (8 * 4 + 4 * 2) + 4 * 2)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds"),
        ({"networks": ()}, "networks"),
        ({"autoencoder": CONFIG.autoencoder.replace(pixel_shuffle=False)}, "pixel_shuffle must be True"),
        ({"autoencoder": CONFIG.autoencoder.replace(periodic=True)}, "periodic"),
        ({"transformer": CONFIG.transformer.replace(dropout=0.1)}, "dropout"),
    ],
)
def test_impossible_benchmarks_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        CONFIG.replace(**changes)
