import dataclasses
import os
import subprocess
import sys

import pytest
import tyro

from lola.core.cli import launch, launch_alone, parse
from lola.core.config import Config, require
from lola.core.errors import LolaError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Config):
    """How to train.

    Arguments:
        steps: Global steps.
        seed: Where it begins.
    """

    common = ("steps",)

    steps: int = 3
    seed: int = 0

    def validate(self):
        require(self.steps > 0, "--steps must be positive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wide(Config):
    """A network.

    Arguments:
        width: How wide.
    """

    kind_name = "wide"

    width: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deep(Config):
    """Another network.

    Arguments:
        depth: How deep.
    """

    depth: int = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(Config):
    """A model.

    Arguments:
        inner_network: One of two.
    """

    inner_network: Wide | Deep = dataclasses.field(default_factory=Wide)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program(Config):
    """A program.

    Arguments:
        sizes: Sizes of things.
        training: How it is trained.
        model: What is trained.
        other: Something else.
    """

    superseded = {"training.seed": "sizes"}  # noqa: RUF012

    sizes: tuple[int, ...] = (1, 2)
    training: Training = dataclasses.field(default_factory=Training)
    model: Model = dataclasses.field(default_factory=Model)
    other: Wide | None = None


PRESETS = {"small": Program, "large": lambda: Program(sizes=(100,))}


def read(*arguments):
    return parse(list(arguments), "program.py", "Does things.", PRESETS, "small")


def test_options_override_presets():
    assert read() == Program()
    assert read("large").sizes == (100,)
    assert read("--sizes", "4", "5").sizes == (4, 5)
    assert read("large", "--training.steps", "9") == Program(sizes=(100,), training=Training(steps=9))


def test_a_kind_is_chosen_by_its_name():
    assert read("--model.inner-network.width", "7").model.inner_network == Wide(width=7)
    for arguments in (["--model.inner-network.type", "Deep"], ["--model.inner-network.type=Deep"]):
        assert read(*arguments).model.inner_network == Deep()
        chosen = read("--model.inner-network.depth", "9", *arguments, "--sizes", "4")
        assert chosen == Program(sizes=(4,), model=Model(inner_network=Deep(depth=9)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["huge"], "unknown preset 'huge'; choose from small, large"),
        (["--bogus", "3"], "error: unknown option --bogus (see --help)"),
        (
            ["--training.step", "3"],
            "unknown option --training.step; did you mean --training.steps? (see --help)",
        ),
        (["--sizes", "many"], "--sizes"),
        (["--training.steps", "0"], "error: --training.steps must be positive"),
        (["--training.steps"], "--training.steps"),
        (["--model.inner-network.type", "Flat"], "unknown kind 'Flat'; choose from wide, Deep"),
        (["--model.inner-network.type"], "unknown kind ''; choose from wide, Deep"),
        (["--training.type", "Deep"], "kinds can be chosen for model.inner_network"),
        (["--model.inner-network.depth", "3"], "--model.inner-network.depth"),
    ],
)
def test_errors_take_one_line(arguments, message, capsys):
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
        return parse(list(arguments), "program.py", "", {"small": preset}, "small", given={"sizes": ""})

    assert read_given() == Program(sizes=(1,), training=Training(steps=30))
    assert read_given("--sizes=7", "--training.steps", "2").training.steps == 2
    for option in (["--sizes", "7"], ["--sizes=7"], ["small", "--sizes", "7"]):
        assert read_given(*option) == Program(sizes=(7,), training=Training(steps=30))


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [([], 30), (["--sizes", "3", "4"], 7), (["small", "--sizes", "3", "4"], 7)],
)
def test_presets_are_given_several_values_where_the_default_has_several(arguments, steps):
    def preset(sizes=()):
        return Program(training=Training(steps=sum(map(int, sizes)) or 30))

    found = parse(arguments, "program.py", "", {"small": preset}, "small", given={"sizes": ()})
    assert found.training.steps == steps


def test_a_given_option_without_a_value_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--steps"], "program.py", "", {"small": lambda steps="3": Training()}, "small", {"steps": ""})
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--steps" in line


def help_of(*arguments, capsys):
    with pytest.raises(SystemExit) as end:
        read(*arguments)
    assert not end.value.code
    return capsys.readouterr().out


def test_help_names_presets_and_common_options_and_all_of_them_on_request(capsys):
    text, everything = (help_of(each, capsys=capsys) for each in ("--help", "--help-all"))
    assert "Sizes of things. (default: 1 2)" in text
    assert "--training.steps INT\n      Global steps. (default: 3)" in text
    assert "--model.inner-network.width" not in text
    for word in (
        *("Does things.", "small (default), large", "--training.steps", "Global steps."),
        *("--model.inner-network.type {wide,Deep}", "--model.inner-network.width"),
    ):
        assert word in everything


def test_a_kind_has_a_short_name_and_that_of_its_class():
    for name in ("wide", "Wide"):
        assert read("--model.inner-network.type", name).model.inner_network == Wide()


def test_an_option_that_another_one_decides_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        read("--training.seed=3")
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line == "program.py: error: --training.seed is set by --sizes; use that instead\n"


def test_positional_arguments_have_names(monkeypatch, capsys):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Reading(Config):
        """A program.

        Arguments:
            path: What is read.
        """

        path: tyro.conf.Positional[str]

    monkeypatch.setattr("sys.argv", ["read.py", "--help"])
    with pytest.raises(SystemExit):
        launch_alone(lambda config: None, Reading)
    assert "Usage: read.py PATH [OPTIONS]" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["read.py"])
    with pytest.raises(SystemExit):
        launch_alone(lambda config: None, Reading)
    assert capsys.readouterr().err == "read.py: error: give PATH; see --help\n"


def test_errors_of_users_become_one_line(monkeypatch):
    def main(config):
        raise LolaError("the disk is full")

    monkeypatch.setattr("sys.argv", ["/path/program.py"])
    with pytest.raises(SystemExit) as end:
        launch(main, PRESETS, "small")
    assert end.value.code == "program.py: error: the disk is full"


@pytest.mark.parametrize(("left", "said"), [("", ""), ("MLflow lacks a run", "; MLflow lacks a run")])
def test_an_interrupt_prints_how_to_resume(monkeypatch, capsys, left, said):
    def interrupted(config):
        raise KeyboardInterrupt(left) if left else KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(SystemExit) as stopped:
        launch(interrupted, PRESETS, "small")
    assert stopped.value.code == 130
    assert capsys.readouterr().err == f"train.py: interrupted; run the same command again to resume{said}\n"


SPEAKING = """
import errno, sys
from lola.core import cli
def main(config):
    print("report: /data/\\u00fcn\\u00ef [x]")
    print("film: \\u2014", file=sys.stderr)
    if sys.argv[1:] == ["--steps", "7"]:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/file")
from dataclasses import dataclass
from lola.core.config import Config
@dataclass(frozen=True, kw_only=True)
class Speaking(Config):
    '''What is said.'''
    steps: int = 1
cli.launch_alone(main, Speaking)
"""


@pytest.mark.parametrize(
    "changes",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_letters_that_a_console_cannot_show_are_no_errors(changes):
    command = [sys.executable, "-c", SPEAKING]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"} | changes
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "report: /data/\\xfcn\\xef [x]\n"


def test_what_a_filesystem_refuses_anywhere_ends_in_one_line():
    command = [sys.executable, "-c", SPEAKING, "--steps", "7"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert "error: cannot use /data/file (No space left on device); free some space" in last
    assert "Traceback" not in ended.stderr


def test_a_closed_pipe_prints_no_traceback():
    code = "import sys; from lola.core.cli import launch_alone; from lola.core.config import Config\n"
    code += "def main(config): [print('x' * 1000) for _ in range(1000)]\n"
    code += "launch_alone(main, Config)"
    done = subprocess.run(
        f'{sys.executable} -c "$CODE" | head -n 1',
        shell=True,
        env=os.environ | {"CODE": code},
        capture_output=True,
    )
    assert done.stdout.startswith(b"x")
    assert done.stderr == b""


PROGRAM = """
import atexit, dataclasses, os
from lola.core.cli import launch_alone
from lola.core.config import Config
from lola.core.errors import LolaError

class Slow:
    def __del__(self, write=os.write):
        write(1, b"freed")

@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Config):
    how: str = "well"

def main(config: Options) -> None:
    '''End.'''
    globals()["slow"] = Slow()
    atexit.register(print, "closed")
    print("ran", end=" ")
    if config.how == "refused":
        raise LolaError("no")
    if config.how == "interrupted":
        raise KeyboardInterrupt
    if config.how == "broken":
        raise ValueError(config.how)

launch_alone(main, Options)
"""


@pytest.mark.parametrize(("how", "code"), [("well", 0), ("refused", 1), ("interrupted", 130), ("broken", 1)])
def test_a_program_ends_without_freeing_what_it_imported(tmp_path, how, code):
    """That takes seconds; what libraries close at exit is closed. A program with a bug ends as any other."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    done = subprocess.run([sys.executable, path, "--how", how], capture_output=True, text=True)
    printed = "ran closed\n" + "freed" * (how == "broken")
    assert (done.returncode, done.stdout) == (code, printed), done.stderr
