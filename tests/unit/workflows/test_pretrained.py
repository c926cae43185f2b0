"""Models that are kept with the source: exported from a storage root, found, and scored again."""

import json
import shutil
import sys
from types import SimpleNamespace

import committed
import emulate
import h5py
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from stages import ROOT

import lola
from lola.core.cli import launch_alone
from lola.core.errors import ConfigError, StorageError
from lola.data.description import EULER
from lola.data.well.excerpt import write_excerpt
from lola.data.well.splits import open_well_file
from lola.emulation.ensemble_config import EnsembleConfig
from lola.emulation.ensembles import open_ensemble
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.storage.stages import WEIGHTS, Stage, read_manifest
from lola.workflows import pretrained
from lola.workflows.export_config import ExportConfig
from lola.workflows.pretrained import export_models, find_pretrained, recorded, recorded_sampler, score_kept

NETWORK = TransformerConfig(features=16, blocks=1, heads=2, modulation=8, dropout=0.0)
DATASET = "euler_multi_quadrants_openBC"
SIZES = {"parameters": 5, "spatial": 2, "window": 5}


def commit(*stage, **details):
    """A stage whose configuration has a stride, as a training's."""
    made = committed.commit(*stage, **details)
    manifest = json.loads((made.folder / "manifest.json").read_text())
    manifest["config"]["stride"] = 2
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    return made


def evaluate(root, well, emulator, crps, **options):
    """The manifest of an evaluation of an emulator."""
    config = EvaluationConfig(**options)
    inputs = {"emulator": emulator.fingerprint}
    stage = Stage(
        root=root, kind="evaluations", system="euler", what=emulator.what, config=config, inputs=inputs
    )
    stage.folder.mkdir(parents=True)
    (path,) = (well / DATASET / "data" / "test").glob("*.hdf5")
    name = f"{DATASET}/test/{path.name}"
    metrics = {f"{config.split}/crps/1-2": crps, f"{config.split}/vrmse/1-2": 0.5}
    rows = [
        {"target": target, "metric": "crps", "trajectory": f"{name}#{row}", "value": value}
        for row, value in ((1, crps), (0, crps + 0.1))
        for target in ("truth", "autoencoded")
    ]
    table = pa.Table.from_pylist(rows)
    table = table.set_column(2, "trajectory", table["trajectory"].dictionary_encode())
    pq.write_table(table, stage.folder / "metrics.parquet")
    stage.commit(trajectories=[f"{name}#1", f"{name}#0"], metrics=metrics)


@pytest.fixture(scope="module")
def root(tmp_path_factory, well):
    """A storage root with two solvers, of which the one in pixel space is better, and a diffusion model."""
    root = tmp_path_factory.mktemp("root")
    config = AutoencoderConfig(latent_channels=4, channels=(8, 8), blocks=(1, 1))
    codec = commit(root, "autoencoders", "autoencoder-f2c4", config, {"channels": 5, "spatial": 2})
    latent = {"autoencoder": codec.name, "inputs": {"autoencoder": codec.fingerprint}}
    diffusion = DiffusionConfig(network=NETWORK)
    diffusion = commit(root, "emulators", "diffusion-f2c4", diffusion, {"channels": 4, **SIZES}, **latent)
    solver = NeuralSolverConfig(network=NETWORK)
    solver = commit(root, "emulators", "neural_solver-f2c4", solver, {"channels": 4, **SIZES}, **latent)
    pixel = NeuralSolverConfig(network=NETWORK.replace(patch_size=(1, 8, 8)))
    pixel = commit(
        root, "emulators", "neural_solver-pixel", pixel, {"channels": 5, **SIZES}, autoencoder=None
    )
    evaluate(root, well, diffusion, 0.3, sampler=SamplerConfig(steps=2), stochastic=True)
    evaluate(root, well, diffusion, 0.4, sampler=SamplerConfig(steps=4), stochastic=True)
    evaluate(root, well, solver, 0.6)
    evaluate(root, well, pixel, 0.5)
    return root


@pytest.fixture(scope="module")
def models(root, well, tmp_path_factory):
    output = tmp_path_factory.mktemp("kept") / "models"
    config = ExportConfig(output=str(output), storage=str(root), well=str(well), trajectories=1, states=4)
    return export_models(config, lambda _: None)


def test_the_best_emulator_of_each_kind_is_kept_in_half_precision(models, root):
    assert sorted(path.name for path in (models / "emulators").iterdir()) == ["diffusion", "neural_solver"]
    assert "patch_size" in (models / "emulators/neural_solver/manifest.json").read_text()
    assert recorded(models / "emulators/diffusion")["sampler"]["steps"] == 2
    weights = load_file(models / "emulators/diffusion" / WEIGHTS)
    assert {each.dtype for each in weights.values() if each.is_floating_point()} == {torch.float16}
    kept = json.loads((models / "emulators/neural_solver/manifest.json").read_text())
    assert kept["what"] == "neural_solver-pixel"
    (codec,) = (models / "autoencoders").iterdir()
    whole = (root / "autoencoders" / codec.name / WEIGHTS).stat().st_size
    assert (codec / WEIGHTS).stat().st_size < 0.8 * whole


def test_kept_models_score_as_recorded_and_nearly_as_the_originals(models):
    for kind in ("diffusion", "neural_solver"):
        emulator, initial = find_pretrained(models, kind)
        scores = recorded(emulator)
        assert score_kept(emulator, initial, recorded_sampler(emulator)) == pytest.approx(
            scores["vrmse"], rel=1e-4
        )
        assert scores["vrmse"] != scores["vrmse_float32"]
        assert scores["vrmse"] == pytest.approx(scores["vrmse_float32"], rel=0.02)


@pytest.mark.parametrize("kind", ["crps_ensemble", "diffusion", "neural_solver"])
def test_the_models_of_the_source_score_as_recorded(kind):
    """Those of the demo, which `emulate.py --pretrained` takes."""
    emulator, initial = find_pretrained(ROOT / "experiments" / "results" / "models", kind)
    scores = recorded(emulator)
    assert score_kept(emulator, initial, recorded_sampler(emulator)) == pytest.approx(
        scores["vrmse"], rel=1e-3
    )
    assert scores["vrmse"] < 1.5


def test_a_few_lines_of_python_draw_an_ensemble(models, tmp_path):
    emulator = lola.load_emulator(models / "emulators" / "diffusion", storage=str(tmp_path))
    assert emulator.stochastic
    assert {each.dtype for each in emulator.model.parameters()} == {torch.float32}
    split = open_well_file(models / "initial.hdf5", emulator.system)
    members = lola.rollout(emulator, split.read(0, 0, 1)[:, :1], split.parameters(0), states=4, members=3)
    assert members.shape == (3, 5, 4, *split.grid)
    assert members.isfinite().all()
    assert not torch.equal(members[0], members[1])


def test_what_is_kept_in_a_folder_needs_no_storage_root(models, tmp_path, monkeypatch):
    monkeypatch.setenv("LOLA_STORAGE", str(tmp_path / "storage"))
    emulator = models / "emulators" / "diffusion"
    open_ensemble(EnsembleConfig(emulator=str(emulator), initial=str(models / "initial.hdf5")))
    lola.load_emulator(emulator)
    (autoencoder,) = models.glob("autoencoders/*")
    lola.load_autoencoder(autoencoder)
    assert not list(tmp_path.iterdir())


def test_the_program_draws_an_ensemble_and_its_film_without_training(models, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "experiments" / "results"
    folder.mkdir(parents=True)
    (folder / "models").symlink_to(models)
    monkeypatch.setattr(emulate, "__file__", str(tmp_path / "experiments" / "emulate.py"))
    output = tmp_path / "ensemble.hdf5"
    options = ["--members", "2", "--storage", str(tmp_path / "storage"), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["emulate.py", "--pretrained", *options])
    launch_alone(emulate.main, emulate.Emulation)
    assert (tmp_path / "ensemble.mp4").stat().st_size
    assert (tmp_path / "ensemble.gif").stat().st_size
    with h5py.File(output) as file:
        assert file.attrs["lola_emulator"] == "diffusion"  # which draws ensembles
        assert file["t0_fields/density"].shape[:2] == (2, 5)
    assert f"ensemble: {output}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrained"], "results/models has no trained models; export those of a finished sweep"),
        (["--members", "2"], "give emulator and initial, or --pretrained; see --help"),
    ],
)
def test_what_is_missing_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(emulate, "__file__", str(tmp_path / "emulate.py"))
    monkeypatch.setattr(sys, "argv", ["emulate.py", *arguments])
    with pytest.raises(SystemExit) as end:
        launch_alone(emulate.main, emulate.Emulation)
    text = f"{end.value.code}\n{capsys.readouterr().err}"
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize("kind", ["shortcut", "/data/initial.hdf5"])
def test_an_unknown_kind_is_answered_with_those_that_there_are(models, kind):
    with pytest.raises(StorageError, match=rf"no emulator of the kind {kind}; name one of diffusion, n"):
        find_pretrained(models, kind)


def test_the_program_draws_with_the_least_crps_not_the_least_vrmse(models, tmp_path):
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    shutil.copytree(copy / "emulators" / "diffusion", copy / "emulators" / "crps_ensemble")
    manifest = copy / "emulators" / "crps_ensemble" / "manifest.json"
    described = json.loads(manifest.read_text())
    for crps, chosen in ((0.1, "crps_ensemble"), (0.9, "diffusion"), (None, "diffusion")):
        described["scores"] |= {"vrmse": 9.0, "evaluation": {"test/crps/1-2": crps, "test/vrmse/1-2": 9.0}}
        manifest.write_text(json.dumps(described))
        assert find_pretrained(copy)[0].name == chosen
    assert find_pretrained(ROOT / "experiments" / "results" / "models")[0].name == "crps_ensemble"


def test_models_of_own_data_are_named_by_their_folder(root, well, tmp_path):
    options = {"system": str(well / DATASET), "trajectories": 1, "states": 4}  # --well is its parent
    config = ExportConfig(output=str(tmp_path / "models"), storage=str(root), **options)
    assert (export_models(config, lambda _: None) / "initial.hdf5").exists()


def test_validation_chooses_where_it_was_scored(root, well, tmp_path):
    copy, lines = tmp_path / "root", []
    shutil.copytree(root, copy)
    (folder,) = copy.glob("emulators/euler-neural_solver-f2c4-*")
    solver = SimpleNamespace(what=folder.name, fingerprint=read_manifest(folder)["fingerprint"])
    evaluate(copy, well, solver, 0.9, split="valid")
    best = pretrained._best(copy, "euler", lines.append)
    assert {kind: emulator for kind, (emulator, _) in best.items()} == {"neural_solver": folder}
    assert lines == ["the best of each kind by their CRPS on the valid split"]


def test_initial_states_are_of_trajectories_of_typical_errors(root, monkeypatch, tmp_path):
    name, written = f"{DATASET}/test/a.hdf5", []
    errors = {f"{name}#{row}": error for row, error in enumerate((9.0, 1.0, 2.0, 4.0, float("inf")))}
    monkeypatch.setattr(pretrained, "_errors", lambda evaluation: errors)
    monkeypatch.setattr(pretrained, "write_excerpt", lambda source, path, rows, steps: written.append(rows))
    config = ExportConfig(system="mine", well=str(tmp_path))
    with pytest.raises(
        StorageError, match=r"a.hdf5, which has .* not exist; name the dataset's folder as --sys"
    ):
        pretrained._write_initial(config, root, tmp_path / "initial.hdf5", root, 2)
    (tmp_path / DATASET / "data" / "test").mkdir(parents=True)
    (tmp_path / DATASET / "data" / "test" / "a.hdf5").touch()
    for count in (1, 2, 3):
        config = ExportConfig(trajectories=count, well=str(tmp_path))
        pretrained._write_initial(config, root, tmp_path / "initial.hdf5", root, 2)
    assert written == [[3], [2, 3], [1, 2, 3]]


def test_models_that_are_too_large_or_change_with_rounding_are_refused(root, well, tmp_path, monkeypatch):
    config = ExportConfig(
        output=str(tmp_path / "models"), storage=str(root), well=str(well), trajectories=1, states=2
    )
    monkeypatch.setattr(pretrained, "MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"the models take 0\.\d MB, and 0\.001 are the most"):
        export_models(config, lambda _: None)
    monkeypatch.setattr(pretrained, "MAX_CHANGE", 0.0)
    with pytest.raises(ConfigError, match=r"has a VRMSE of .* with weights of float16 and of"):
        export_models(config, lambda _: None)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "models").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        export_models(config, lambda _: None)


def test_an_excerpt_has_the_first_states_of_some_trajectories(well, tmp_path):
    (path,) = (well / DATASET / "data" / "test").glob("*.hdf5")
    write_excerpt(path, tmp_path / "part.hdf5", [1], 3)
    with h5py.File(path) as whole, h5py.File(tmp_path / "part.hdf5") as part:
        assert part.attrs["n_trajectories"] == 1
        assert (part["t0_fields/density"][()] == whole["t0_fields/density"][1:2, :3]).all()
        assert (part["dimensions/time"][()] == whole["dimensions/time"][:3]).all()
        assert dict(part["t1_fields"].attrs)["field_names"].tolist() == ["momentum"]
        assert sorted(part["boundary_conditions"]) == sorted(whole["boundary_conditions"])
    assert open_well_file(tmp_path / "part.hdf5", EULER).trajectories[0].steps == 3
