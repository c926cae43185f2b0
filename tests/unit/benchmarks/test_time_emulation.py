import dataclasses
import json

import pytest
import torch
from benchmarks.configs import EmulationBenchmark
from benchmarks.emulation import build_pair, emulation_table, run_emulation_benchmark
from benchmarks.simulators import SimulatorTime

from lola.core.errors import ConfigError
from lola.emulation.sampling_config import SamplerConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.transformer_config import TransformerConfig
from lola.simulate.euler import EulerConfig

NETWORK = TransformerConfig(features=16, blocks=1, heads=2, modulation=8, dropout=0.0)
CONFIG = EmulationBenchmark(
    autoencoder=AutoencoderConfig(
        latent_channels=4, channels=(8, 8), blocks=(1, 1), patch_size=4, dropout=0.0
    ),
    latent=NETWORK,
    pixel=NETWORK.replace(patch_size=(1, 8, 8)),
    simulation=EulerConfig(resolution=16, outputs=2, end=0.1),
    sampler=SamplerConfig(steps=2),
    rows=(1, 3),
    rounds=2,
    simulators=False,
)


@pytest.mark.parametrize("model", ["neural_solver", "diffusion"])
@pytest.mark.parametrize("space", ["latent", "pixel"])
def test_the_plain_way_gives_the_same_states(model, space):
    torch.manual_seed(0)
    # In few steps from noise of 1000, the plain way in single precision loses digits that ours keeps
    ours, plain = build_pair(CONFIG.replace(sampler=SamplerConfig(steps=16)), model, space)
    context = torch.randn(2, 4 if space == "latent" else 5, 1, *CONFIG.grid(space))
    parameters, keys = torch.randn(2, 5), [(0,), (1,)]
    x, y = (
        each.decode(torch.cat(list(each.rollout(context, parameters, 8, keys)), dim=2))
        for each in (ours, plain)
    )
    assert plain.bind(None, None) is None
    torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)


def test_every_variant_is_timed():
    pytest.importorskip("clawpack")
    result = run_emulation_benchmark(CONFIG, progress=lambda name: None)
    assert json.loads(json.dumps(result)) == result
    assert len(result["simulator"]) == 2
    assert len(result["cases"]) == 4
    for case in result["cases"]:
        assert case["max_abs_diff"] < 1e-3
        assert {(each["writing"], each["rows"]) for each in case["variants"]} == {
            (writing, rows) for writing in ("plain", "ours") for rows in (1, 3)
        }
        assert all(len(each["seconds"]) == 2 for each in case["variants"])
    rows = emulation_table(result).splitlines()
    assert len([row for row in rows if row.startswith("| diffusion | latent")]) == 4
    plain = next(row for row in rows if "| plain |" in row and "| 1 | float32" in row)
    assert plain.split("|")[7].strip() == plain.split("|")[8].strip() == "1.00"


def test_other_simulators_are_listed_too():
    timed = SimulatorTime("rayleigh_benard", (64, 32), (0.2, 0.4, 0.3))
    missing = SimulatorTime("turbulence_gravity_cooling", (32, 32, 32), missing="it needs astronomix")
    result = {
        "steps": 2,
        "simulator": [0.5],
        "simulators": list(map(dataclasses.asdict, (timed, missing))),
        "cases": [],
    }
    table = emulation_table(result)
    assert "| simulator, rayleigh_benard 64 x 32 | pixel | 1 | float64 | | 300.00 | | | |" in table
    assert "astronomix." in table.splitlines()[-1]
    assert "turbulence" not in table


def test_impossible_benchmarks():
    for change in ({"rounds": 0}, {"rows": ()}, {"rows": (0,)}, {"pixel": NETWORK.replace(patch_size=7)}):
        with pytest.raises(ConfigError):
            CONFIG.replace(**change)
