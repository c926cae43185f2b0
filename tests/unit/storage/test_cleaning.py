"""What no finished sweep needs is listed, and deleted when that is asked for; nothing else is."""

import dataclasses

import pytest
from upath import UPath

from lola.core.config import Config
from lola.core.errors import ConfigError, StorageError
from lola.storage import leases
from lola.storage.cleaning import CleanConfig, clean
from lola.storage.event_log import EventLog
from lola.storage.leases import lease
from lola.storage.stages import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number(Config):
    number: int = 0


def make(root, kind, what, *inputs, number=0):
    stage = Stage(
        root=root,
        kind=kind,
        system="euler",
        what=what,
        config=Number(number=number),
        inputs={each.what: each.fingerprint for each in inputs},
    )
    stage.folder.mkdir(parents=True, exist_ok=True)
    (stage.folder / "model.safetensors").write_bytes(bytes(1_500_000))
    stage.commit()
    return stage


def record(root, name, status, *stages):
    event_log = EventLog(root / "sweeps" / name)
    for stage in stages:
        event_log.stage(f"{stage.kind}/{stage.name}", stage.fingerprint)
    event_log.status(status)


class Root:
    """A finished sweep, an interrupted one, and what belongs to none.

    The finished sweep names an emulator but not the autoencoder that it needs.
    """

    def __init__(self, root):
        self.root = root
        self.codec = make(root, "autoencoders", "codec")
        self.solver = make(root, "emulators", "solver", self.codec)
        self.other = make(root, "autoencoders", "codec", number=1)
        self.late = make(root, "emulators", "solver", self.other, number=1)
        self.lonely = make(root, "emulators", "lonely", self.other, number=2)
        record(root, "euler-00000000", "FINISHED", self.solver)
        record(root, "euler-11111111", "KILLED", self.other, self.late)

    def exist(self):
        return {name for name, stage in vars(self).items() if name != "root" and stage.folder.is_dir()}


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def run(root, **options):
    lines = []
    clean(CleanConfig(storage=str(root), **options), lines.append)
    return lines


ALL = {"codec", "solver", "other", "late", "lonely"}


def test_unused_stages_are_listed_with_their_sizes_and_kept(root):
    lines = run(root.root, unused=True)
    assert lines[0].startswith("unused stages: 1, 0.002 GB")
    assert lines[1].split()[:3] == ["0.002", "GB", f"emulators/{root.lonely.name}"]
    assert lines[1].endswith("(of no sweep, made by another command)")
    assert lines[-1] == f"--delete frees 0.002 GB in {root.root}"
    assert root.exist() == ALL


def test_a_search_for_faults_lasts_as_long_as_its_statistics(root):
    """No sweep names it, and no stage reads it."""
    statistics = [make(root.root, "statistics", "statistics", number=n) for n in range(2)]
    searches = [make(root.root, "statistics", "faults", each, number=n) for n, each in enumerate(statistics)]
    record(root.root, "euler-22222222", "FINISHED", statistics[0])
    run(root.root, unused=True, delete=True)
    assert [each.folder.is_dir() for each in (*statistics, *searches)] == [True, False, True, False]


def test_what_is_unused_is_deleted_and_inputs_of_what_is_kept_are_not(root):
    run(root.root, unused=True, delete=True)
    assert root.exist() == ALL - {"lonely"}
    run(root.root, unused=True, delete=True, interrupted=True)
    assert root.exist() == {"codec", "solver"}


def test_without_unused_no_stage_is_deleted(root):
    run(root.root, delete=True, interrupted=True)
    assert root.exist() == ALL


def test_a_stage_whose_lease_is_held_is_kept_with_its_inputs(root):
    with (
        lease(root.late.folder),
        pytest.raises(StorageError, match=rf"kept emulators/{root.late.name} \(process \d+ .* an input of"),
    ):
        run(root.root, unused=True, delete=True, interrupted=True)
    assert root.exist() == ALL - {"lonely"}


def test_a_sweep_that_runs_keeps_its_stages(root):
    with lease(root.root / "sweeps" / "euler-11111111"):
        run(root.root, unused=True, delete=True, interrupted=True)
    assert root.exist() == ALL - {"lonely"}


def test_a_stage_that_was_not_finished_is_unused_if_no_sweep_names_it(root):
    (root.lonely.folder / "manifest.json").unlink()
    run(root.root, unused=True, delete=True)
    assert root.exist() == ALL - {"lonely"}


def test_temporary_files_are_deleted_unless_their_folder_is_in_use(root):
    left = [
        root.codec.folder / ".model.safetensors.0123abcd",
        root.root / "well" / "euler" / "data" / ".gamma.hdf5.0123abcd",
        root.root / "reports" / ".tune-00000000" / "state.json",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with (
        lease(root.codec.folder),
        lease(root.root / "well"),
        lease(root.root / "sweeps" / "euler-00000000"),
        pytest.raises(StorageError) as error,
    ):
        run(root.root, delete=True)
    assert str(error.value).count(" has the lease of ") == 3
    assert all(path.exists() for path in left)
    lines = run(root.root, delete=True)
    assert "temporary files: 3, 0.000 GB" in lines
    assert not any(path.exists() for path in left)


def test_what_looks_temporary_elsewhere_is_not_deleted(root):
    own = [root.root / folder / ".notes.0123abcd" for folder in ("mlflow", "mine")]
    for path in own:
        path.parent.mkdir()
        path.write_text("mine")
    probe = root.root / f".probe-{'0' * 32}"
    probe.touch()
    run(root.root, unused=True, delete=True)
    assert all(path.exists() for path in own)
    assert not probe.exists()


def test_unknown_files_are_deleted_only_if_they_are_named(root):
    notes, figure = root.root / "notes.txt", root.codec.folder / "figure" / "a.png"
    figure.parent.mkdir()
    for path in (notes, figure):
        path.write_text("mine")
    lines = run(root.root, unused=True, delete=True)
    assert "unknown files: 2, 0.000 GB" in lines
    assert notes.exists()
    assert figure.exists()
    run(root.root, delete=True, paths=(f"autoencoders/{root.codec.name}/figure",))
    assert notes.exists()
    assert not figure.exists()
    with pytest.raises(ConfigError, match="is no unknown file or folder of"):
        run(root.root, delete=True, paths=(f"autoencoders/{root.codec.name}/model.safetensors",))
    assert root.codec.finished


@pytest.mark.parametrize("folder", ["well-smoke", "mine/here", "."])
def test_simulations_are_never_deleted(root, folder):
    simulation = root.root / folder / "euler" / "data" / "test" / "gamma_1.4.hdf5"
    simulation.parent.mkdir(parents=True)
    simulation.write_text("precious")
    (simulation.parents[2] / "stats.yaml").write_text("mean: 0")
    assert "unknown files: 0, 0.000 GB" in run(root.root, unused=True, delete=True)
    for path in (folder, str(simulation.relative_to(root.root))):
        with pytest.raises(ConfigError, match="is no unknown file or folder of"):
            run(root.root, delete=True, paths=(path,))
    assert simulation.exists()


def test_what_looks_temporary_in_a_nested_dataset_is_not_deleted(root):
    """No lease says whether somebody writes there."""
    for name in ("test/gamma_1.4.hdf5", ".notes.0123abcd"):
        path = root.root / "mine" / "here" / "euler" / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    run(root.root, unused=True, delete=True)
    assert path.exists()


def test_objects_are_listed_and_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("LOLA_CACHE", str(tmp_path))
    monkeypatch.setattr(leases, "lease", lambda folder: FreeLease())
    root = UPath(f"memory://{tmp_path.name}")
    kept, unused = make(root, "autoencoders", "codec"), make(root, "autoencoders", "codec", number=1)
    record(root, "euler-00000000", "FINISHED", kept)
    assert run(root, unused=True)[0].startswith("unused stages: 1, 0.002 GB")
    run(root, unused=True, delete=True)
    assert kept.finished
    assert not unused.finished
    assert not (unused.folder / "model.safetensors").exists()


class FreeLease:
    """The lease of an object that nobody holds; a real one takes seconds."""

    def acquire(self, timeout):
        assert timeout == 0

    def release(self):
        pass


def test_stages_that_were_not_searched_for_are_not_counted(root):
    assert run(root.root)[0] == "unused stages: not searched for; --unused lists them"
    assert run(root.root, unused=True)[0].startswith("unused stages: 1, ")
