import dataclasses

import pytest

from lola.cli import launch, parse
from lola.config import Config, require
from lola.errors import LolaError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Config):
    """How to train.

    Arguments:
        steps: Global steps.
    """

    steps: int = 3

    def validate(self):
        require(self.steps > 0, "steps must be positive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program(Config):
    """A program.

    Arguments:
        sizes: Sizes of things.
        training: How it is trained.
    """

    sizes: tuple[int, ...] = (1, 2)
    training: Training = dataclasses.field(default_factory=Training)


PRESETS = {"small": Program, "large": lambda: Program(sizes=(100,))}


def read(*arguments):
    return parse(list(arguments), "program.py", "Does things.", PRESETS, "small")


def test_options_override_presets():
    assert read() == Program()
    assert read("large").sizes == (100,)
    assert read("--sizes", "4", "5").sizes == (4, 5)
    assert read("large", "--training.steps", "9") == Program(sizes=(100,), training=Training(steps=9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["huge"], "no preset is called 'huge'; there are small, large"),
        (["--bogus", "3"], "--bogus"),
        (["--sizes", "many"], "--sizes"),
        (["--training.steps", "0"], "steps must be positive"),
        (["--training.steps"], "--training.steps"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        read(*arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("program.py: error: ")
    assert message in line


def test_presets_are_functions_of_what_is_given():
    def preset(steps="3", sizes="1"):
        return Program(training=Training(steps=10 * int(steps)), sizes=(int(sizes),))

    def read_given(*arguments):
        return parse(list(arguments), "program.py", "", {"small": preset}, "small", given=("sizes",))

    assert read_given() == Program(sizes=(1,), training=Training(steps=30))
    assert read_given("--sizes=7", "--training.steps", "2").training.steps == 2
    for option in (["--sizes", "7"], ["--sizes=7"], ["small", "--sizes", "7"]):
        assert read_given(*option) == Program(sizes=(7,), training=Training(steps=30))


def test_a_given_option_without_a_value_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--steps"], "program.py", "", {"small": lambda steps="3": Training()}, "small", ("steps",))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--steps" in line


def test_help_names_presets_and_explains_options(capsys):
    with pytest.raises(SystemExit) as end:
        read("--help")
    assert not end.value.code
    text = capsys.readouterr().out
    for word in ("Does things.", "small (default), large", "--training.steps", "Global steps."):
        assert word in text


def test_errors_of_users_become_one_line(monkeypatch):
    def main(config):
        raise LolaError("the disk is full")

    monkeypatch.setattr("sys.argv", ["/path/program.py"])
    with pytest.raises(SystemExit) as end:
        launch(main, PRESETS, "small")
    assert end.value.code == "program.py: error: the disk is full"
