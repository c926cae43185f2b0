"""The rules of the house: who may import whom, and how large things may grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "lola").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))

LEAVES = {
    *("config", "errors", "filesystem", "integrity", "remote", "lease", "seeding", "storage", "spool"),
    *("strict_json", "waiting"),
}
PHYSICS = {"data.systems", "data.transforms", "data.statistics"}
MODELS = {
    *("autoencoder", "transformer_autoencoder", "levels", "network", "transformer", "unet", "binding"),
    *("conditioning", "schedule", "unrolled", "diffusion", "neural_solver"),
}
MAY_IMPORT = {
    "nn": set(),
    "config": {"errors"},
    "filesystem": {"errors"},
    "remote": {"errors", "filesystem"},
    "integrity": {"errors", "remote"},
    "lease": {"errors", "filesystem", "remote", "waiting"},
    "waiting": set(),
    "storage": {"config", "errors", "filesystem", "integrity", "strict_json", "remote", "lease", "waiting"},
    "inventory": {"remote", "storage"},
    "spool": {"errors", "filesystem", "strict_json", "remote"},
    "strict_json": {"errors"},
    "seeding": set(),
    "errors": set(),
    "live_metrics": set(),
    "cli": {"config", "errors", "filesystem", "waiting"},
    "follow": {"remote", "spool"},
    "progress": {"follow", "remote", "spool", "waiting"},
    "tracking": {"errors", "filesystem", "follow", "lease", "remote", "spool", "storage"},
    "data": LEAVES,
    "simulate": LEAVES | {"data"},
    "training": LEAVES | {"data.state"},
    "models": LEAVES | {"data.state", "nn", "models"},
    "sampling": LEAVES | {"models"},
    "guidance": LEAVES | {"models", "sampling"},
    "observation": LEAVES,
    "emulation": LEAVES
    | PHYSICS
    | {"models", "nn", "sampling", "guidance", "observation", "training.checkpoint"},
    "registry": LEAVES | {"tracking", "training.checkpoint"},
    "ensemble": LEAVES | {"data", "sampling", "emulation", "registry"},
    "film": LEAVES | {"data", "ensemble"},
    "reference": LEAVES | PHYSICS | {"models", "nn", "sampling", "emulation", "training.checkpoint"},
    "counting": LEAVES | {"data.state", "nn"},
    "cost": LEAVES | {"counting", "training"},
    "peak": LEAVES | {"counting", "cost"},
    "benchmark": LEAVES | {"models", "data", "training", "sampling", "emulation", "simulate", "evaluation"},
    "evaluation": LEAVES | {"data", "models", "sampling", "guidance", "observation", "emulation"},
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def room(module: str) -> str:
    """The room that a module of lola lives in: its package or itself, models together."""
    first = module.split(".")[0]
    return "models" if first in MODELS else first


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_layers(path):
    module = ".".join(path.relative_to(ROOT / "lola").with_suffix("").parts)
    here = room(module)
    if here in ("distributed", "__init__"):
        return
    for name in imports(path):
        if not name.startswith("lola."):
            continue
        target = name.removeprefix("lola.")
        allowed = MAY_IMPORT[here] | {here}
        assert room(target) in allowed or target in allowed, f"{module} must not import {name}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_ray_and_mlflow_have_one_home(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert "ray" not in roots or path.parent.name == "distributed"
    assert "mlflow" not in roots or path.parent.name == "tracking"


@pytest.mark.parametrize("path", LIBRARY + EXPERIMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_stay_small(path):
    source = path.read_text()
    thin = path.parent.name == "experiments" and path.name != "presets.py"
    assert source.count("\n") <= (80 if thin else 400)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{path}: {node.name} is too long"
            assert node.returns is not None or path.parent.name == "experiments", f"{path}: {node.name}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_assertions_only_tell_types(path):
    """`python -O` leaves assertions out: they do no work, and guard nothing but what mypy cannot see."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assert):
            text = ast.unparse(node.test)
            assert text.startswith("isinstance(") or text.endswith(" is not None"), f"{path}: assert {text}"


def test_files_of_tests_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), "pytest tells test files apart by their names"
