"""The README's commands exist: integration tests run them (`tests/integration/test_readme.py`)."""

import re
import shlex

import pytest
from readme import NOT_RUN, ROOT, SMALLER, blocks, reason_not_to_run, smaller

COMMANDS = [command for block in blocks() if block.language == "console" for command in block.commands]


def test_no_rule_is_stale():
    """Every rule of what is not run, or run smaller, is of a command that the README has."""
    for pattern in NOT_RUN:
        assert any(re.search(pattern, command) for command in COMMANDS), pattern
    for pattern, _ in SMALLER:
        shown = [smaller_by(command, pattern) for command in COMMANDS]
        assert any(shown), pattern


def smaller_by(command, pattern):
    """Whether a rule changes a command, after those before it."""
    for each, replacement in SMALLER:
        if each == pattern:
            return bool(re.search(pattern, command))
        command = re.sub(each, replacement, command)
    return False


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_programs_that_exist(command):
    if reason_not_to_run(command) or command.startswith(("export ", "(")):
        return
    words = shlex.split(smaller(command))
    assert words[0] in ("python", "ray", "mlflow")
    scripts = [word for word in words if word.startswith("experiments/")]
    assert all((ROOT / script).is_file() for script in scripts)
