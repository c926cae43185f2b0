import dataclasses
import functools
import json
import math
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from committed import commit

from lola.core import waiting
from lola.core.errors import ConfigError, DataError, DivergedError, LolaError, StorageError
from lola.data.description import EULER
from lola.data.transforms import Standardisation
from lola.data.well.splits import open_well_file
from lola.emulation import ensembles as ensemble
from lola.emulation.emulator import Emulator, load_emulator
from lola.emulation.ensemble_config import EnsembleConfig
from lola.emulation.ensembles import open_ensemble, write_ensemble
from lola.emulation.film import check_film, write_film
from lola.emulation.film_config import FilmConfig
from lola.emulation.inference_config import InferenceConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig

NETWORK = TransformerConfig(features=16, blocks=1, heads=2, modulation=8, dropout=0.0)
SAMPLER = SamplerConfig(steps=2)
DATASET = "euler_multi_quadrants_openBC"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    config = AutoencoderConfig(latent_channels=4, channels=(8, 8), blocks=(1, 1))
    codec = commit(root, "autoencoders", "autoencoder-f2c4", config, {"channels": 5, "spatial": 2})
    sizes = {"parameters": 5, "spatial": 2, "window": 5}
    commit(
        root,
        "emulators",
        "diffusion-f2c4",
        DiffusionConfig(network=NETWORK),
        {"channels": 4, **sizes},
        autoencoder=codec.name,
        inputs={"autoencoder": codec.fingerprint},
    )
    pixel = NeuralSolverConfig(network=NETWORK.replace(patch_size=(1, 8, 8)))
    commit(root, "emulators", "neural_solver-pixel", pixel, {"channels": 5, **sizes}, autoencoder=None)
    return root


@pytest.fixture(scope="module")
def initial(well):
    (path,) = (well / DATASET / "data" / "test").glob("*.hdf5")
    return path


@pytest.fixture
def config(root, initial):
    def build(what="diffusion", **options):
        (folder,) = (root / "emulators").glob(f"euler-{what}-*")
        options = {"members": 2, "stride": 2, "sampler": SAMPLER, "storage": str(root), **options}
        return EnsembleConfig(emulator=folder.name, initial=str(initial), **options)

    return build


def test_the_file_holds_what_the_emulator_draws(tmp_path, config, root, initial):
    settings = config(trajectories=(1, 0), start=3, context=2, states=5, overlap=2)
    path = write_ensemble(settings, tmp_path / "a.hdf5")
    assert [each.name for each in tmp_path.iterdir()] == ["a.hdf5"]
    written, source = open_well_file(path, EULER), open_well_file(initial, EULER)
    assert len(written.trajectories) == 4
    assert written.steps == 7
    (folder,) = (root / "emulators").glob("euler-diffusion-*")
    emulator = load_emulator(folder, SAMPLER)
    scale = Standardisation(EULER)
    for row, (index, member) in enumerate([(1, 0), (1, 1), (0, 0), (0, 1)]):
        known = source.read(index, 3, 6, 2)
        assert torch.equal(written.read(row, 0, 2), known)
        key = (0, f"{DATASET}/test/{initial.name}#{index}", member)
        z = emulator.encode(scale.forward(known[None]))
        parts = emulator.rollout(z, source.parameters(index)[None], 5, [key], overlap=2)
        expected = scale.inverse(emulator.decode(torch.cat(list(parts), dim=2)))[0]
        torch.testing.assert_close(written.read(row, 2, 7), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(written.parameters(0), source.parameters(1))
    times = source.axis(0, "time")
    step = (times[-1] - times[0]) / (len(times) - 1)
    np.testing.assert_allclose(written.axis(0, "time"), times[0] + step * (3 + 2 * np.arange(7)), rtol=1e-5)


def test_it_says_how_far_it_is(tmp_path, config, monkeypatch):
    """Long work is logged with the time left; the last line says that it has finished."""
    monkeypatch.setattr(ensemble, "PROGRESS_INTERVAL_S", 0.001)
    monkeypatch.setattr(waiting, "POLL_INTERVAL_S", 0.001)
    logged = []
    write_ensemble(config(states=8), tmp_path / "a.hdf5", logged.append)
    assert logged[0].startswith("loading euler-diffusion")
    assert "emulating 8 states of 2 samples on cpu" in logged
    assert any(re.match(r"emulated \d+ of 16 states", line) for line in logged)
    assert logged[-1].startswith("all 16 states are drawn")


def test_an_ensemble_does_not_depend_on_chunks(tmp_path, config):
    settings = config(members=3, states=4, trajectories=(0, 1))
    whole = write_ensemble(settings, tmp_path / "a.hdf5")
    chunks = InferenceConfig(rows=2, states=5)
    parts = write_ensemble(settings.replace(inference=chunks), tmp_path / "b.hdf5")
    for row in range(6):
        a, b = (open_well_file(path, EULER).read(row, 0, 5) for path in (whole, parts))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_members_that_diverge_are_named_and_nothing_is_written(tmp_path, config, monkeypatch):
    """A rollout whose states are not finite from its second window on, of the second member alone."""
    rollout = Emulator.rollout

    def diverging(self, *positional, **named):
        for i, part in enumerate(rollout(self, *positional, **named)):
            if i:
                part[3] = math.inf
            yield part

    monkeypatch.setattr(Emulator, "rollout", diverging)
    message = "energy of trajectory 1, member 1, is not finite at step 10"
    with pytest.raises(DivergedError, match=message) as error:
        write_ensemble(config(states=8, trajectories=(0, 1)), tmp_path / "ensemble.hdf5")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_past_ends_with_the_known_states(tmp_path, config, initial):
    path = write_ensemble(config(start=12, context=2, backward=True), tmp_path / "past.hdf5")
    written, source = open_well_file(path, EULER), open_well_file(initial, EULER)
    assert written.steps == 6 + 2
    assert torch.equal(written.read(0, 6, 8), source.read(0, 12, 15, 2))
    np.testing.assert_allclose(written.axis(0, "time"), source.axis(0, "time")[0:15:2], rtol=1e-6)
    assert torch.isfinite(written.read(1, 0, 6)).all()


def test_the_well_reads_an_ensemble(tmp_path, config):
    the_well_data = pytest.importorskip("the_well.data")
    settings = config("neural_solver", states=6, members=8, trajectories=(0, 1), parameters=("gamma=1.5",))
    path = write_ensemble(settings, tmp_path / "data" / "test" / "ensemble.hdf5")
    theirs = the_well_data.WellDataset(
        path=str(tmp_path), well_split_name="test", n_steps_output=6, use_normalization=False
    )
    assert len(theirs) == 2  # a neural solver has one member
    ours = open_well_file(path, EULER)
    for row in range(2):
        sample = theirs[row]
        states = torch.cat([sample["input_fields"], sample["output_fields"]])
        assert torch.equal(torch.movedim(states, -1, 0), ours.read(row, 0, 7))
        assert sample["constant_scalars"].item() == pytest.approx(1.5)


def test_axes_keep_their_names_and_their_kind(tmp_path, config, initial):
    """Components of vectors are along them: of a sphere, not along x and y."""
    sphere = tmp_path / DATASET / "data" / "test" / "sphere.hdf5"
    sphere.parent.mkdir(parents=True)
    shutil.copy(initial, sphere)
    names = {"x": "theta", "y": "phi"}
    with h5py.File(sphere, "r+") as file:
        file.attrs["grid_type"] = "equiangular"
        for old, new in names.items():
            file["dimensions"].move(old, new)
        file["dimensions"].attrs["spatial_dims"] = list(names.values())
        for condition in file["boundary_conditions"].values():
            condition.attrs["associated_dims"] = [
                names[str(axis)] for axis in condition.attrs["associated_dims"]
            ]
    path = write_ensemble(config(states=2).replace(initial=str(sphere)), tmp_path / "ensemble.hdf5")
    with h5py.File(path) as file:
        assert file.attrs["grid_type"] == "equiangular"
        assert [*file["dimensions"].attrs["spatial_dims"]] == ["theta", "phi"]
        assert len(file["dimensions/theta"]) == len(open_well_file(initial, EULER).coordinates[0])


def test_members_by_other_parameters_differ(tmp_path, config):
    paths = [
        write_ensemble(config(states=4, parameters=options), tmp_path / f"{len(options)}.hdf5")
        for options in ((), ("gamma=2",))
    ]
    a, b = (open_well_file(path, EULER) for path in paths)
    assert a.parameters(0)[0] == pytest.approx(1.4)
    assert b.parameters(0)[0] == pytest.approx(2.0)
    assert not torch.equal(a.read(0, 1, 5), b.read(0, 1, 5))


def test_states_are_as_many_as_the_file_has(config):
    assert open_ensemble(config(start=1)).states == 9
    assert open_ensemble(config(start=1, stride=None)).states == 4
    assert open_ensemble(config(start=5, backward=True)).states == 2
    assert open_ensemble(config(start=20, states=50)).states == 50


def test_the_stride_is_that_of_the_training(config, root, tmp_path):
    shutil.copytree(root, tmp_path / "root")
    (manifest,) = (tmp_path / "root" / "emulators").glob("euler-diffusion-*/manifest.json")
    content = json.loads(manifest.read_text())
    content["config"]["stride"] = 3
    manifest.write_text(json.dumps(content))
    assert open_ensemble(config(stride=None, storage=str(tmp_path / "root"))).stride == 3
    with pytest.raises(
        ConfigError, match=r"--stride 2: .* was trained on states 3 steps apart; leave it out"
    ):
        open_ensemble(config(stride=2, storage=str(tmp_path / "root")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trajectories": (2,)}, "--trajectories 2: .* has 2, which count from 0"),
        ({"start": 21}, "21 states and none of number 21"),
        ({"start": 20}, "--states"),
        ({"start": 1, "backward": True}, "before those known"),
        ({"context": 5}, "context must be 1 to 4"),
        ({"overlap": 5}, "overlap must be 1 to 4"),
        ({"members": 0}, "members"),
        ({"states": 0}, "states"),
        ({"parameters": ("viscosity=1",)}, "has no viscosity; there are gamma"),
        ({"parameters": ("gamma",)}, "NAME=VALUE"),
        ({"parameters": ("gamma=nan",)}, "cannot be nan"),
        ({"device": "cuda:77"}, "--device cuda:77 does not exist"),
        ({"device": "tpu"}, "--device must be cpu, cuda or"),
        ({"device": "cuda:-1"}, "--device must be cpu, cuda or"),
        ({"device": "meta"}, "--device must be cpu, cuda or"),
        ({"trajectories": (0, 0)}, "--trajectories contains 0 more than once"),
        ({"parameters": ("gamma=1.4", "gamma=1.5")}, "--parameters contains gamma more than once"),
    ],
)
def test_impossible_ensembles(config, options, message):
    with pytest.raises(ConfigError, match=message):
        open_ensemble(config(**options))


def test_a_file_has_as_many_constants_as_the_network_takes(tmp_path, config, initial):
    other = tmp_path / initial.name
    shutil.copy(initial, other)
    with h5py.File(other, "r+") as file:
        file["scalars"].attrs["field_names"] = ["gamma", "other"]
        file.copy("scalars/gamma", file["scalars"], "other")
    message = rf"{other} has the constants gamma, other, and \S+ takes 1; name a file of the simulations"
    with pytest.raises(ConfigError, match=message):
        open_ensemble(config().replace(initial=str(other)))


def test_missing_files_and_devices_are_reported_in_one_line(tmp_path, config):
    for change in (
        {"emulator": "nothing"},
        {"emulator": str(tmp_path)},
        {"initial": str(tmp_path / "missing.hdf5")},
    ):
        with pytest.raises(LolaError) as error:
            open_ensemble(dataclasses.replace(config(), **change))
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="must end in"):
        write_ensemble(config(), tmp_path / "a.txt")


def test_ensemble_and_film_go_to_an_object_store(tmp_path, config, memory_root, initial):
    path = write_ensemble(config(states=2), memory_root / "drawn" / "a.hdf5")
    films = write_film(path, FilmConfig(members=1, size=32), initial)
    here = write_ensemble(config(states=2), tmp_path / "a.hdf5")
    there = tmp_path / "there.hdf5"
    there.write_bytes(path.read_bytes())
    states = [open_well_file(each, EULER).read(1, 0, 3, 1) for each in (here, there)]
    assert torch.equal(*states)
    assert [film.read_bytes()[:6] for film in films if film.suffix == ".gif"] == [b"GIF89a"]
    assert {each.name for each in path.parent.iterdir()} == {"a.hdf5", "a.mp4", "a.gif"}
    with pytest.raises(StorageError, match="holds credentials"):
        write_ensemble(config(), "s3://user:secret@bucket/a.hdf5")


def test_a_failure_leaves_no_files(tmp_path, config, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lola.emulation.ensembles._write", fail)
    with pytest.raises(KeyboardInterrupt):
        write_ensemble(config(states=4), tmp_path / "a.hdf5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("film", "message"),
    [
        ({"trajectory": 1}, "--film.trajectory 1: the ensemble has 1 trajectories, counted from 0"),
        ({"fields": ("heat",)}, "--film.fields: the ensemble has no field heat"),
        ({"size": 4096}, "a --film.size of 4096 makes frames of 20650 pixels, and 8192 are the most"),
    ],
)
def test_films_that_there_cannot_be_are_refused_before_drawing(tmp_path, config, film, message):
    check = functools.partial(check_film, FilmConfig(**film))
    with pytest.raises(ConfigError, match=message):
        write_ensemble(config(), tmp_path / "a.hdf5", check=check)
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_larger_than_the_disk_is_refused_before_it_is_drawn(tmp_path, config):
    with pytest.raises(ConfigError, match=r"takes 2\.1e\+04 GB and .* fewer --members, --states"):
        write_ensemble(config(states=10**6, members=4096), tmp_path / "a.hdf5")
    assert list(tmp_path.iterdir()) == []


def test_the_input_is_never_replaced(config, tmp_path):
    initial = Path(config().initial)
    before = initial.read_bytes()
    (tmp_path / "link.hdf5").symlink_to(initial)
    for output in (initial, tmp_path / "link.hdf5"):
        with pytest.raises(ConfigError, match="is the file of the initial states, which would be lost"):
            write_ensemble(config(overwrite=True), output)
    assert initial.read_bytes() == before


@pytest.mark.parametrize("split", ["train", "test"])
def test_ensembles_do_not_become_files_of_a_dataset(config, tmp_path, split):
    folder = tmp_path / "mine" / "data" / split
    folder.mkdir(parents=True)
    (folder / "simulated.hdf5").touch()
    with pytest.raises(
        ConfigError, match=rf"is in the folder of a dataset's {split} split, of which it would"
    ):
        write_ensemble(config(), folder / "a.hdf5")
    assert [path.name for path in folder.iterdir()] == ["simulated.hdf5"]


def test_a_file_that_cannot_be_used_is_not_to_be_excluded(config, tmp_path, initial):
    """There is no such option."""
    text, empty = tmp_path / "text.hdf5", tmp_path / "nan.hdf5"
    text.write_text("plain text")
    shutil.copy(initial, empty)
    with h5py.File(empty, "r+") as file:
        file["t0_fields/pressure"][0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"plain te'\); name another file or trajectory, or copy it again if"):
        open_ensemble(config().replace(initial=str(text)))
    with pytest.raises(DataError, match=r"pressure is not finite .* 0; name another file or trajectory$"):
        write_ensemble(config().replace(initial=str(empty)), tmp_path / "a.hdf5")


def test_what_exists_is_replaced_on_request_alone(config, tmp_path):
    path = write_ensemble(config(states=2), tmp_path / "a.hdf5")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"a\.hdf5 exists; give another --output, or replace it with"):
        write_ensemble(config(states=3), path)
    assert path.read_bytes() == before
    write_ensemble(config(states=3, overwrite=True), path)
    assert path.read_bytes() != before
