import pytest
import torch
import yaml
from runs import DATASET, write_autoencoder, write_emulator

from lola.core.errors import ConfigError, DataError
from lola.data.description import EULER, RAYLEIGH_BENARD
from lola.data.well.splits import open_split
from lola.emulation.sampling_config import SamplerConfig
from lola.reference import load_emulator
from lola.reference.dataset import read_system
from lola.reference.published_run import PublishedRun

RB = {
    **DATASET,
    "name": "rayleigh_benard",
    "physics": "rayleigh_benard",
    "fields": ["buoyancy", "pressure", "velocity_x", "velocity_y"],
    "transform": {},
    "stats": {"mean": list(RAYLEIGH_BENARD.mean), "std": list(RAYLEIGH_BENARD.std)},
}


def system(tmp_path, dataset, **trajectory):
    config = {"surrogate": {}, "dataset": dataset, "trajectory": trajectory}
    return read_system(PublishedRun(tmp_path, config, tmp_path / "state.pth", {}))


def test_the_system_of_a_run(tmp_path):
    """Fields in the run's order, with its transforms and statistics; the physics is ours."""
    known = system(tmp_path, DATASET, stride=2)
    assert known.channels == ("density", "energy", "momentum_x", "momentum_y", "pressure")
    assert known.transforms == ("log1p", "log1p", "identity", "identity", "identity")
    assert known.vectors == ((2, 3),)
    assert (known.mean, known.std) == ((0.5, 1.0, 0.1, 0.0, 0.2), (0.3, 0.5, 0.6, 0.7, 0.4))
    assert (known.name, known.stride, known.datasets) == ("euler", 2, ("euler_multi_quadrants_openBC",))
    assert (known.ranges, known.flips, known.permute) == (EULER.ranges, EULER.flips, EULER.permute)


def test_published_parameters_are_logarithms_but_for_t0(tmp_path):
    logged, raw = (system(tmp_path, RB | {"augment": names}) for names in (["log_scalars"], []))
    assert set(logged.log_parameters) == {"Rayleigh", "Prandtl", "rho0"}
    assert raw.log_parameters == ()


def test_data_that_are_none_of_ours_are_known_too(tmp_path):
    known = system(
        tmp_path,
        {
            **DATASET,
            "name": "shear",
            "physics": ["shear_flow"],
            "fields": ["tracer", "velocity_x", "velocity_y"],
            "transform": {"1": "arcsinh", "2": "arcsinh"},
            "stats": {"mean": [0, 0, 0], "std": [1, 2, 2]},
        },
    )
    assert (known.name, known.datasets) == ("shear", ("shear_flow",))
    assert known.transforms == ("identity", "arcsinh", "arcsinh")
    assert known.vectors == ((1, 2),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 64}, "resolution"),
        ({"physics": ["euler_multi_quadrants_openBC", "rayleigh_benard"]}, "mixes"),
        ({"dimensions": ["x", "y", "z"]}, "in 3 dimensions"),
        ({"dimensions": []}, "dimensions"),
        ({"fields": ["energy", "density"]}, "mean"),
        ({"fields": ["a", "b", "c", "d", "e"]}, "dataset has fields a, b"),
        ({"fields": {"a": 1}}, "fields"),
        ({"transform": {0: "sqrt"}}, "sqrt"),
        ({"transform": {7: "log1p"}}, "channel 7 of 5"),
        ({"transform": {2: "arcsinh"}}, "components of momentum"),
        ({"transform": [1]}, "must map"),
        ({"stats": {"mean": [0] * 5, "std": [1, 1, 0, 1, 1]}}, "std"),
        ({"stats": {"mean": [0] * 5, "std": [1] * 5, "rms": [1] * 5}}, "rms"),
        ({"stats": None}, "mean"),
        ({"augment": ["random_axis_flip", "rotate"]}, "rotate"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        system(tmp_path, DATASET | change)


def test_physical_fields_are_rolled_out(latent_run, well):
    """From The Well's files to predicted fields, with nothing but the emulator."""
    emulator = load_emulator(latent_run, SamplerConfig(steps=2))
    split = open_split(well, emulator.system, "test")
    x = split.read(0, 0, 1)[None]
    assert x.shape == (1, 5, 1, 16, 16)
    y = emulator.standardisation.forward(x)
    torch.testing.assert_close(y[:, 0], (torch.log1p(x[:, 0]) - 0.5) / 0.3)
    torch.testing.assert_close(y[:, 4], (x[:, 4] - 0.2) / 0.4)
    z = emulator.encode(y)
    parameters = split.parameters(0)[None]
    assert parameters.tolist() == [pytest.approx([1.4, 1, 1, 1, 1])]
    states = torch.cat(list(emulator.rollout(z, parameters, states=6, keys=[(0,)])), dim=2)
    fields = emulator.standardisation.inverse(emulator.decode(states))
    assert fields.shape == (1, 5, 6, 16, 16)
    assert fields.isfinite().all()


def test_pixel_space_runs_hold_no_autoencoder(tmp_path):
    emulator = load_emulator(write_emulator(tmp_path, "surrogate", channels=5))
    assert emulator.autoencoder is None
    assert emulator.system.channels[0] == "density"


def change(folder, **sections):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | sections))


def test_parts_that_do_not_belong_together_are_refused(tmp_path, latent_run):
    folder = write_emulator(tmp_path / "other", "surrogate", channels=4)
    write_autoencoder(folder / "autoencoder")
    with pytest.raises(DataError, match="network has channels 4, the latents 3"):
        load_emulator(folder)
    with pytest.raises(DataError, match=r"autoencoder is missing"):
        load_emulator(write_emulator(tmp_path / "alone", "surrogate", ae_run="/somewhere"))
    with pytest.raises(DataError, match="network has channels 3, the fields 5"):
        load_emulator(write_emulator(tmp_path / "pixel", "surrogate"))
    with pytest.raises(DataError, match="less than the 4 boundary codes"):
        load_emulator(write_emulator(tmp_path / "label", "surrogate", channels=5, parameters=3))
    stats = {"mean": [0.0] * 5, "std": [1.0] * 5}
    change(latent_run / "autoencoder", dataset=DATASET | {"stats": stats})
    with pytest.raises(DataError, match="dataset has other mean than"):
        load_emulator(latent_run)


def test_without_data_there_is_no_standardisation(latent_run):
    change(latent_run, dataset=None)
    change(latent_run / "autoencoder", dataset=None)
    emulator = load_emulator(latent_run)
    assert emulator.system is None
    with pytest.raises(ConfigError, match="does not know its physical system"):
        _ = emulator.standardisation
