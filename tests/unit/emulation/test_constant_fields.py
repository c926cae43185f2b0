"""Fields that are constant in time and scalars that vary in time, in rollouts, ensembles' files and films."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch

import lola
from lola.data.well.header import infer_system
from lola.data.well.splits import open_well_file
from lola.emulation.emulator import load_emulator
from lola.emulation.ensemble_config import EnsembleConfig
from lola.emulation.ensembles import write_ensemble
from lola.emulation.film import write_film
from lola.emulation.film_config import FilmConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.storage.stages import WEIGHTS, Stage
from lola.training.checkpoint import save_weights

COUNT, STEPS, GRID = 3, 9, (8, 8)
NETWORK = TransformerConfig(features=16, blocks=1, heads=2, modulation=8, dropout=0.0, patch_size=(1, 4, 4))
SIZES = {"parameters": 4, "spatial": 2, "window": 4}


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    generator = np.random.default_rng(0)
    arrays = {
        "u": generator.normal(size=(COUNT, STEPS, *GRID)),
        "force": np.arange(COUNT * STEPS).reshape(COUNT, STEPS) / 10,
    }
    folder = lola.write_well(
        tmp_path_factory.mktemp("well"),
        "forced",
        arrays,
        axes={name: np.arange(8.0) for name in "xy"},
        boundaries="periodic",
        constants={"slope": generator.normal(size=(COUNT, *GRID, 2))},
        splits=["train", "valid", "test"],
    )
    (path,) = folder.glob("data/test/*.hdf5")
    return path


@pytest.fixture(scope="module")
def root(initial, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    inferred = infer_system(initial, "forced")
    system = dataclasses.replace(inferred, mean=(0.0, 0.5, -0.5, 1.0), std=(1.0, 2.0, 1.0, 3.0))
    codec = AutoencoderConfig(latent_channels=4, channels=(8, 8), blocks=(1, 1))
    names = {}
    for kind, what, config, sizes in (
        ("autoencoders", "autoencoder", codec, {"channels": 4, "spatial": 2}),
        ("emulators", "pixel", NeuralSolverConfig(network=NETWORK), {"channels": 4, **SIZES}),
        ("emulators", "latent", NeuralSolverConfig(network=NETWORK), {"channels": 4, **SIZES}),
    ):
        torch.manual_seed(0)
        stage = Stage(root=root, kind=kind, system="forced", what=what, config=config, inputs={})
        stage.folder.mkdir(parents=True)
        save_weights(stage.folder / WEIGHTS, config.build(**sizes))
        names[what] = stage.name
        stage.commit(
            model={"type": type(config).__name__, **config.to_json()},
            sizes=sizes,
            data=system.to_json(),
            **(
                {"autoencoder": names["autoencoder"] if what == "latent" else None}
                if kind == "emulators"
                else {}
            ),
        )
    return root, names


def test_constant_fields_condition_every_window_in_pixel_space(root, initial):
    folder, names = root
    emulator = load_emulator(folder / "emulators" / names["pixel"])
    system = emulator.system
    assert [field.role for field in system.fields] == ["state", "constant", "scalar"]
    known = open_well_file(initial, system).read(0, 0, 1)[None]
    context = emulator.standardisation.forward(known)
    drawn = torch.cat(list(emulator.rollout(context, torch.zeros(1, 4), 7, [("row",)])), dim=2)
    assert torch.equal(drawn[:, 1:3], context[:, 1:3].expand(-1, -1, 7, -1, -1))
    # The second window is what follows from the end of the first with the true constants
    second = torch.cat(list(emulator.rollout(drawn[:, :, 2:3], torch.zeros(1, 4), 3, [("row",)])), dim=2)
    torch.testing.assert_close(second, drawn[:, :, 3:6])
    assert not torch.equal(drawn[:, 3, 0], context[:, 3, 0])  # scalars that vary are predicted


@pytest.mark.parametrize("space", ["pixel", "latent"])
def test_the_file_of_an_ensemble_has_fields_of_every_role(root, initial, tmp_path, space):
    folder, names = root
    config = EnsembleConfig(
        emulator=names[space], initial=str(initial), storage=str(folder), context=2, states=4, stride=1
    )
    path = write_ensemble(config, tmp_path / "ensemble.hdf5")
    system = load_emulator(folder / "emulators" / names[space]).system
    assert [field.role for field in infer_system(path, "forced").fields] == ["state", "constant", "scalar"]
    written, truth = (open_well_file(each, system).read(0, 0, 6) for each in (path, initial))
    assert torch.equal(written[:, :2], truth[:, :2])
    assert torch.equal(written[1:3], truth[1:3])
    assert (written[3] == written[3, :, :1, :1]).all()
    with h5py.File(path) as file:
        assert file["t1_fields/slope"].shape == (1, *GRID, 2)
        assert file["scalars/force"].shape == (1, 6)
    again = write_ensemble(config.replace(initial=str(path), start=4, states=2), tmp_path / "continued.hdf5")
    assert again.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_film_shows_fields_of_every_role(root, initial, tmp_path):
    folder, names = root
    config = EnsembleConfig(
        emulator=names["pixel"], initial=str(initial), storage=str(folder), states=2, stride=1
    )
    path = write_ensemble(config, tmp_path / "ensemble.hdf5")
    films = write_film(path, FilmConfig(fields=("u", "slope_x", "force"), size=64), initial)
    assert all(film.stat().st_size > 0 for film in films)
