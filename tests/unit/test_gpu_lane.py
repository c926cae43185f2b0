"""Checks of `tests/gpu` that need no GPU: its needs, its tests, its copy of the presets."""

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LANE = ROOT / "tests" / "gpu"
WHEELS = LANE / "wheels.sh"


def names(array: str) -> list[str]:
    """The packages of an array of `wheels.sh`."""
    return re.search(rf"^{array}=\(([^)]*)\)", WHEELS.read_text(), re.MULTILINE)[1].split()


def closure(roots: Iterable[str]) -> set[str]:
    """Packages with all that they ask for."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            asked = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        needs = [Requirement(text) for text in asked]
        waiting += [each.name for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A folder of packages such as a machine has with PyTorch and the wheels alone."""
    folder = tmp_path_factory.mktemp("packages")
    taken = closure([*names("wanted"), "torch"]) | set(names("alone"))
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.name)
        if name in taken or name.startswith("nvidia"):
            for top in {path.parts[0] for path in distribution.files or ()} - {"..", "__pycache__"}:
                if not (folder / top).exists():
                    (folder / top).symlink_to(distribution.locate_file(top))
    assert not list(folder.glob("ray*"))
    assert not list(folder.glob("mlflow*"))
    return folder


def run(packages: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """pytest with some packages alone."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/tmp", "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-S", "-m", "pytest", "-W", "default", "-p", "no:cacheprovider", "-q"]
    return subprocess.run(
        [*command, str(LANE), *arguments],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": f"{ROOT}{os.pathsep}{packages}"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_the_lane_runs_with_pytorch_and_its_wheels_alone(bare):
    """All of it is collected without Ray and MLflow, and a cheap part of every file rehearsed."""
    cheap = (
        "(eager_training and neural_solver and float32 and accumulated)"
        " or (eager_rollouts and neural_solver) or (scores_are and broken and 2) or every_metric"
        " or (wrapped and neural_solver and 2) or (waits and neural_solver) or evaluations"
    )
    done = run(bare, "-k", cheap, LOLA_GPU_REHEARSAL="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GPU against CPU" in done.stdout
    assert "rollout neural_solver float32 eager" in done.stdout
    assert "synchronisations in a step of neural_solver" in done.stdout
    assert "could not import 'pyarrow'" in done.stdout


def test_without_a_gpu_the_lane_says_why_in_one_line():
    done = subprocess.run(
        ["make", "--silent", "gputest", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1
    assert "sees no CUDA device here" in lines[0]
    assert done.stdout == ""


def test_the_lane_names_packages_that_are_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", str(LANE / "ready.py")], env={}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert re.fullmatch(r"gputest: \S+ lacks torch, numpy, .*; see tests/gpu/README.md", done.stderr.strip())


def test_the_presets_of_the_lane_are_those_of_the_paper(tmp_path):
    from benchmarks import paper

    from lola.models.kinds import KINDS
    from lola.workflows import presets
    from lola.workflows.base_plan import open_plan
    from lola.workflows.model_shape import latent_grid
    from lola.workflows.plan import SweepPlan

    known = {}
    for system in ("euler", "rayleigh_benard", "turbulence_gravity_cooling"):
        config = presets.paper(system).replace(emulators=tuple(KINDS))
        plan = open_plan(SweepPlan, config, tmp_path, tmp_path / "nothing")
        for step in plan.steps:
            if step.stage.kind in ("autoencoders", "emulators"):
                run, latent = step.run.args[0], "latents" in step.stage.inputs
                grid = latent_grid(plan.config.autoencoder, plan.data.grid) if latent else plan.data.grid
                states = (run.sizes["channels"], run.sizes.get("window", 1), *grid)
                known[f"{system} {step.title.replace('-', ' ')}"] = run.model, run.sizes, states, run.training
    for name, own in paper.MODELS.items():
        assert (own.model, own.sizes, own.shape, own.training) == known[name], name
        assert own.of_a_gpu.batch_size * own.training.most_workers == own.training.batch_size


def test_wheels_are_packages_that_the_project_asks_for():
    """Whatever is carried is asked for by the project, or by what is."""
    asked = closure(Requirement(text).name for text in importlib.metadata.requires("lola"))
    carried = {canonicalize_name(name) for name in (*names("wanted"), *names("alone"))}
    assert carried - asked <= {"pytest"}


@pytest.mark.parametrize("arguments", [[], ["--surprise", "a", "3.12"], ["a"]])
def test_wheels_tell_how_they_are_called(arguments):
    done = subprocess.run(["bash", str(WHEELS), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("Collect the wheels that tests/gpu needs")


def test_wheels_do_not_go_where_something_is(tmp_path):
    (tmp_path / "mine").touch()
    done = subprocess.run(["bash", str(WHEELS), str(tmp_path), "3.12"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not empty" in done.stderr
