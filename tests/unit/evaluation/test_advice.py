"""Whatever command or option a report's text names exists: each is given to the real command line."""

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

import lola.core.cli
from lola.core.cli import parse

ROOT = Path(__file__).parents[3]
SOURCES = [
    *sorted((ROOT / "lola/evaluation").rglob("*.py")),
    *sorted((ROOT / "lola/workflows").rglob("*report*.py")),
    *sorted((ROOT / "lola/workflows").rglob("*plan*.py")),
]
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*(?![\w.(-])(?: [\d.]+)*")
COMMAND = re.compile(r"experiments/(\w+)\.py")


def is_error(node):
    """Whether a node refuses options, which it names as the command that was given spells them."""
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("require", "ConfigError")


def texts():
    """The strings of all modules that make reports, and the texts of the page's template."""
    for path in SOURCES:
        docstrings = set()
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                docstrings.add(node.body[0].value)
        errors = {each for call in ast.walk(tree) if is_error(call) for each in ast.walk(call)}
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and node not in docstrings | errors:
                yield node.value
    template = (ROOT / "lola/evaluation/page/assets/page.html.j2").read_text()
    yield from re.findall(r">([^<{}]+)<", template)


ADVICE = sorted({text for text in texts() if OPTION.search(text) or COMMAND.search(text)})


def test_there_is_advice():
    assert any("--contexts" in text for text in ADVICE)
    assert any("experiments/guide.py" in text for text in ADVICE)


@pytest.fixture
def commands(monkeypatch):
    """What each command would be launched with."""
    launched = {}
    monkeypatch.setattr(
        lola.core.cli, "launch", lambda *given, **named: launched.update({"given": (given, named)})
    )
    monkeypatch.syspath_prepend(ROOT / "experiments")

    def read(name):
        runpy.run_path(str(ROOT / "experiments" / f"{name}.py"), run_name="__main__")
        (_, presets, *rest), named = launched["given"]
        return presets, named.get("given", rest[1] if len(rest) > 1 else ())

    yield read
    for name in ("plan", "presets"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("text", ADVICE)
def test_what_a_report_advises_can_be_run(commands, text, capsys):
    named = COMMAND.search(text)
    presets, given = commands(named.group(1) if named else "sweep_compression")
    options = [part for option in OPTION.findall(text) for part in option.split()]
    preset = "smoke" if "smoke" in presets else next(iter(presets))
    try:
        parse([preset, *options], "program", "", presets, preset, given)
    except SystemExit:  # without the value that an error, say, has no advice on
        assert capsys.readouterr().err.startswith("program: error: Missing value")
