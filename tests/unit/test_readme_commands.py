"""What READMEs name exists: programs, options, targets, paths. `test_readme.py` runs their code."""

import re
import shlex
import subprocess
import sys

import pytest
from readme import (
    NOT_RUN,
    READMES,
    ROOT,
    RUN,
    SMALLER,
    arguments_of,
    console_commands,
    exists,
    inline_commands,
    parse_options,
    paths_named,
    reason_not_to_run,
    smaller,
)

COMMANDS = [command for path in RUN for command in console_commands(path)]
PROGRAMS = {
    " ".join([program, *arguments]): (program, arguments)
    for path in READMES
    for command in console_commands(path) + inline_commands(path)
    for program, arguments in filter(None, [arguments_of(command)])
}


def test_no_rule_is_stale():
    """Every rule of what is not run, or run smaller, is of a command that a README has."""
    for pattern in NOT_RUN:
        assert any(re.search(pattern, command) for command in COMMANDS), pattern
    for pattern, _ in SMALLER:
        assert any(changes(command, pattern) for command in COMMANDS), pattern


def changes(command, pattern):
    """Whether a rule changes a command, after those before it."""
    for each, replacement in SMALLER:
        if each == pattern:
            return bool(re.search(pattern, command))
        command = re.sub(each, replacement, command)
    return False


@pytest.mark.parametrize("command", PROGRAMS)
def test_options_are_those_of_the_command_line(command, monkeypatch, capsys):
    program, arguments = PROGRAMS[command]
    # presets follow the data of a system, and those of a folder do not exist here
    arguments = [re.sub(r"^mine/\w+$", "euler", argument) for argument in arguments]
    if "--help" in arguments:
        with pytest.raises(SystemExit) as ended:
            parse_options(program, arguments, monkeypatch)
        assert not ended.value.code
        assert "--storage" in capsys.readouterr().out
    else:
        parse_options(program, arguments, monkeypatch)


def test_an_option_that_does_not_exist_would_be_found(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_options("sync_mlflow.py", ["--storag", "s3://bucket"], monkeypatch)
    with pytest.raises(SystemExit, match="2"):
        parse_options("sweep_compression.py", ["smoke", "--latent-chanels", "8"], monkeypatch)


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_commands_name_programs_that_exist(command):
    if command.startswith("make "):
        target = command.split()[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {target}"
    elif not reason_not_to_run(command) and not command.startswith(("export ", "(")):
        words = shlex.split(smaller(command))
        assert words[0] in ("env", "python", "ray", "mlflow", "prometheus")
        assert all((ROOT / word).is_file() for word in words if word.startswith("experiments/"))


@pytest.mark.parametrize(
    "path", [*READMES, ROOT / "CONTRIBUTING.md"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_paths_exist(path):
    named = paths_named(path)
    assert not [name for name in named if not exists(name, path)]


def test_a_path_that_does_not_exist_would_be_found(tmp_path):
    (tmp_path / "README.md").write_text(
        "`lola/nothing.py` and [here](lola/README.md#nowhere), [there](lola/README.md#terms), `lola/core`"
    )
    path = tmp_path / "README.md"
    assert [exists(name, path) for name in paths_named(path)] == [False, True, False, True]


def test_the_front_page_stays_short():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    first_screen = text.split("## ")[0]
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", first_screen)
    assert (ROOT / picture).stat().st_size < 300_000


def test_the_library_has_a_reading_order_of_seven_files():
    section = (ROOT / "lola" / "README.md").read_text().split("## Seven files to read first\n")[1]
    files = re.findall(r"^\d\. `([^`]+)`", section.split("\nThen")[0], re.MULTILINE)
    assert len(files) == 7
    assert all((ROOT / "lola" / file).is_file() for file in files)


def test_the_levels_are_those_of_the_architecture():
    """`lola/README.md` names every package, on the level that `test_architecture` holds it to."""
    source = (ROOT / "tests" / "unit" / "test_architecture.py").read_text()
    levels = re.search(r"^LEVELS = \((.*?)^\)", source, re.MULTILINE | re.DOTALL)[1]
    expected = [set(re.findall(r'"(\w+)"', line)) for line in levels.splitlines() if "{" in line]
    expected = [names for names in expected if names != {"__init__"} and names]
    text = (ROOT / "lola" / "README.md").read_text()
    rows = dict(re.findall(r"^\| (\d) \| (.*) \|$", text, re.MULTILINE))
    for level, names in enumerate(expected, 1):
        for name in names:
            assert re.search(rf"(^|\. )`{name}/`", rows[str(level)]), f"{name} is on level {level}"
    assert len(rows) == len(expected)


def test_citation_is_valid_yaml_of_this_version():
    import yaml

    import lola

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == lola.__version__
    assert {"cff-version", "message", "title", "authors", "references"} <= citation.keys()
    (paper,) = citation["references"]
    assert paper["url"] in (ROOT / "README.md").read_text()


def test_the_list_of_public_names_is_complete():
    script = "import lola; print(' '.join(lola.__all__))"
    names = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    text = (ROOT / "README.md").read_text()
    assert not [name for name in names.split() if f"lola.{name}" not in text and f"`{name}`" not in text]
