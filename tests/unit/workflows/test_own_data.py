"""The page on one's own data: its script writes a dataset, and a sweep is planned with the draft of it.

`tests/integration/test_readme.py` runs the whole page.
"""

import runpy
import sys

import pytest
from readme import ROOT, console_commands, parse_options, smaller

import lola
from lola.workflows.forecast.show import show_sweep

PAGE = ROOT / "experiments" / "README.md"
EXAMPLE = [command for command in console_commands(PAGE) if "gray_scott" in command]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The dataset of the page's script, in the smallest number of simulations."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gray_scott.py", str(folder / "mine"), "3"])
        runpy.run_path(str(ROOT / "experiments" / "examples" / "gray_scott.py"), run_name="__main__")
    return folder / "mine" / "gray_scott"


def test_the_commands_follow_each_other():
    programs = [command.split()[1] for command in EXAMPLE]
    assert programs == [
        "experiments/examples/gray_scott.py",
        "experiments/describe.py",
        "experiments/sweep_compression.py",
        "experiments/emulate.py",
    ]


def test_the_script_writes_patterns(dataset):
    split = lola.open_well(dataset.parent, "gray_scott", "test")
    assert (split.system.channels, split.constants, split.grid, split.steps) == (
        ("A", "B"),
        ("feed", "kill"),
        (64, 64),
        51,
    )
    last = split.read(0, 50, 51)
    assert last[0].std() > 0.1, "patterns last"


def test_a_sweep_is_planned_with_the_draft(dataset, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(dataset.parents[1])
    (describe, sweep, emulate) = [smaller(command).split()[1:] for command in EXAMPLE[1:]]
    monkeypatch.setattr(sys, "argv", describe)
    runpy.run_path(str(ROOT / describe[0]), run_name="__main__")
    assert (dataset / "system.yaml").is_file()
    config = parse_options("sweep_compression.py", [*sweep[1:], "--storage", str(tmp_path)], monkeypatch)
    show_sweep(config)
    plan = capsys.readouterr().out
    model = emulate[1].removeprefix("gray_scott-diffusion-")
    assert model in plan, f"the page emulates with {model}"
    assert (dataset.parents[1] / emulate[2]).is_file()
