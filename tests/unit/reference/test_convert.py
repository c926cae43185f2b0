import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml
from mlflow import MlflowClient
from runs import write_autoencoder

from lola import reference
from lola.core.errors import DataError
from lola.emulation import emulator as emulation
from lola.emulation.sampling_config import SamplerConfig
from lola.reference.convert import read_conversion, write_conversion

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
SAMPLER = SamplerConfig(steps=2)


def imported(folder, root, name=None):
    conversion = read_conversion(folder, root, name)
    return conversion.stage, write_conversion(conversion)


def rolled(emulator):
    x = torch.randn(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    z = emulator.encode(x)
    label = torch.tensor([[1.4, 1, 1, 1, 1]]).expand(2, -1)
    states = emulator.rollout(z, label, states=5, keys=[(0,), (1,)])
    return emulator.decode(torch.cat(list(states), dim=2))


def test_an_emulator_computes_the_same_as_a_stage(latent_run, tmp_path):
    stage, written = imported(latent_run, tmp_path / "storage")
    assert written
    ours, theirs = (
        emulation.load_emulator(stage.folder, SAMPLER),
        reference.load_emulator(latent_run, SAMPLER),
    )
    assert ours.system == theirs.system
    assert torch.equal(rolled(ours), rolled(theirs))
    assert stage.folder.parent == tmp_path / "storage" / "emulators"
    assert stage.what.endswith("-f2c3")
    manifest = stage.manifest()
    assert manifest["sizes"] == {"channels": 3, "parameters": 5, "spatial": 2, "window": 5}
    assert manifest["published"]["trajectory"]["stride"] == 4
    events = [json.loads(line) for line in (stage.folder / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == ["describe", "status", "model", "status"]


def test_importing_twice_reuses_the_stages(latent_run, tmp_path):
    stage, _ = imported(latent_run, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again, written = imported(latent_run, tmp_path)
    assert (again.folder, written) == (stage.folder, False)
    assert {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")
    }.items() <= files.items()
    autoencoder, written = imported(latent_run / "autoencoder", tmp_path)
    assert not written
    assert autoencoder.name == stage.manifest()["autoencoder"]


def test_other_weights_are_another_stage(tmp_path):
    torch.manual_seed(0)
    stages = [imported(write_autoencoder(tmp_path / str(i)), tmp_path / "s", "mine")[0] for i in range(2)]
    assert stages[0].fingerprint != stages[1].fingerprint
    assert {stage.what for stage in stages} == {"mine"}
    x = torch.randn(1, 5, 8, 8)
    with torch.no_grad():
        for i, stage in enumerate(stages):
            theirs = reference.load_autoencoder(tmp_path / str(i))
            assert torch.equal(emulation.load_autoencoder(stage.folder).encode(x), theirs.encode(x))


def test_a_run_that_we_cannot_be_leaves_nothing(latent_run, tmp_path):
    path = latent_run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["dataset"]["fields"] = ["energy"]
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(DataError):
        imported(latent_run, tmp_path / "storage")
    assert not (tmp_path / "storage").exists()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["import_published.py", *map(str, arguments)])
    monkeypatch.syspath_prepend(EXPERIMENTS)
    runpy.run_path(str(EXPERIMENTS / "import_published.py"), run_name="__main__")


def test_the_command_registers_a_model_once(latent_run, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = tmp_path / "storage"
    for state in ("imported", "reused"):
        run(monkeypatch, latent_run, "--storage", storage, "--name", "theirs")
        assert f"{state}: {storage / 'emulators'}" in capsys.readouterr().out
    client = MlflowClient(f"sqlite:///{storage / 'mlflow' / 'mlflow.db'}")
    versions = client.search_model_versions("name = 'euler-theirs'")
    assert len(versions) == 1
    tags = client.get_run(versions[0].run_id).data.tags
    assert tags["lola.stage"] == "emulator"
    assert tags["lola.space"] == "latent"
    assert float(tags["lola.compression"]) == pytest.approx(5 * 2 * 2 / 3, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["/nowhere"], 1, "config.yaml cannot be read"),
        ([], 2, "give RUN"),
        (["/nowhere", "--bogus", "1"], 2, "bogus"),
        (["/nowhere", "--name", "a/b"], 2, "name a/b must be"),
    ],
)
def test_bad_calls_end_in_one_line(arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOLA_STORAGE", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, *arguments)
    text = str(end.value.code) if code == 1 else capsys.readouterr().err.strip()
    assert message in text
    assert "\n" not in text
    assert not list(tmp_path.glob("*/*"))
