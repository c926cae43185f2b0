"""The rules of the code: which package may import which, and how large files and functions may grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "lola").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))

LEVELS = (
    {"core", "nn"},
    {"storage"},
    {"data"},
    {"models", "training", "simulate"},
    {"emulation"},
    {"evaluation", "reference"},
    {"distributed"},
    {"workflows"},
    {"__init__.py"},
)
"""The packages from the bottom up; those of one level do not know each other."""
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_imports_only_packages_below_it(path):
    package = path.relative_to(ROOT / "lola").parts[0]
    for name in imports(path):
        root, _, inner = name.partition(".")
        if root == "lola" and inner.split(".")[0] != package:
            assert LEVEL[inner.split(".")[0]] < LEVEL[package], f"{path} must not import {name}"


def test_scores_and_tables_do_without_the_page():
    """The packages of `lola/evaluation`, from the bottom up, each of which imports only those before it."""
    order = ("scores", "tables", "page", "studies")
    for level, name in enumerate(order):
        for path in (ROOT / "lola" / "evaluation" / name).rglob("*.py"):
            above = {f"lola.evaluation.{other}" for other in order[level + 1 :]}
            assert not {module.rpartition(".")[0] for module in imports(path)} & above, path


def test_a_file_s_name_says_what_it_holds():
    """No two files of the library have one name, but the base of all configurations and that of trainings."""
    names = [path.name for path in LIBRARY if path.name not in ("__init__.py", "config.py")]
    assert len(names) == len(set(names))


def test_what_imports_ray_is_what_distributed_holds():
    """A module that names Ray, or one of `lola.distributed`, is in that package; no other one is."""
    for path in LIBRARY:
        inside = path.relative_to(ROOT / "lola").parts[0] == "distributed"
        names = set(imports(path))
        if any(name.split(".")[0] == "ray" for name in names):
            assert inside, f"{path} imports Ray"
        elif inside and path.name != "__init__.py":
            assert any(name.startswith("lola.distributed.") for name in names), f"{path} does without Ray"
        assert "mlflow" not in {name.split(".")[0] for name in names} or path.parent.name == "tracking"


@pytest.mark.parametrize("path", LIBRARY + EXPERIMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    source = path.read_text()
    assert source.count("\n") <= (80 if path.parent.name == "experiments" else 400)
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
