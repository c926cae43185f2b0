"""What is made again when a description is edited: the stages that the key changes, and what needs them."""

import dataclasses

import pytest
from layouts import write_layout

from lola.data.well.datasets import Datasets
from lola.data.well.find import find_system
from lola.distributed.jobs import evaluate
from lola.distributed.jobs.evaluate import EvaluationRun, run_evaluation
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.rows import Subject
from lola.workflows import presets
from lola.workflows.plan import SweepPlan
from lola.workflows.sweep_report import sweep_report_stage

ALL = {"statistics", "autoencoders", "latents", "emulators", "evaluations", "reports"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    for split in ("train", "valid", "test"):
        write_layout(root / "mine" / "data" / split / "a.hdf5", 2, grid=(32, 16), steps=30)
    return root


def stages(root, text):
    """The fingerprints of a sweep's stages by kind."""
    (root / "mine" / "system.yaml").write_text(text)
    config = presets.smoke(str(root / "mine"), storage=str(root / "storage"))
    plan = SweepPlan(config, root / "storage", root)
    found = {kind: [] for kind in ALL} | {"reports": [sweep_report_stage(plan).fingerprint]}
    for step in plan.steps:
        found[step.stage.kind].append(step.stage.fingerprint)
    return found


@pytest.fixture(scope="module")
def before(root):
    return stages(root, "name: mine\n")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("geometry: {y: nonuniform}", {"evaluations", "reports"}),
        ("shown: velocity_x", {"reports"}),
        ("seconds_per_state: 2.5", {"reports"}),
        ("ranges: [[1, 7], [8, null]]", {"evaluations", "reports"}),
        ("spectrum_ranges: [[1, 7]]", {"evaluations", "reports"}),
        ("bounds: {density: [0, null]}", {"evaluations", "reports"}),
        ("conserved: {mass: {channels: [density]}}", {"evaluations", "reports"}),
        ("starts: [2]", {"evaluations", "reports"}),
        ("stride: 2", {"emulators", "evaluations", "reports"}),
        ("symmetries: {flips: [1]}", ALL),
        ("name: yours", ALL),
    ],
)
def test_stages_that_a_key_does_not_change_are_kept(root, before, text, changed):
    after = stages(root, text if text.startswith("name") else f"name: mine\n{text}\n")
    assert all(before.values())
    assert {kind for kind in ALL if before[kind] != after[kind]} == changed


def test_scores_follow_the_description_of_today_and_the_statistics_of_the_training(root, monkeypatch):
    class Stop(Exception):
        pass

    class Opened(Datasets):
        def open(self, system, split, faults=None):
            raise Stop(system)

    system, _ = find_system(str(root / "mine"), Datasets(root))
    trained = dataclasses.replace(system, mean=(1.0,), ranges=((1, 2),), shown="old")
    today = dataclasses.replace(system, ranges=((3, 4),), bounds=(), shown="new")
    monkeypatch.setattr(evaluate, "trained_system", lambda _: trained)
    subject = Subject(system="s", dataset="d", fingerprint="f", model="m", space="pixel", compression=1.0)
    run = EvaluationRun(None, EvaluationConfig(), subject, today, Opened(root), emulator=root)
    with pytest.raises(Stop) as stop:
        run_evaluation(run)
    (opened,) = stop.value.args
    assert (opened.mean, opened.ranges, opened.shown) == ((1.0,), ((3, 4),), "new")
