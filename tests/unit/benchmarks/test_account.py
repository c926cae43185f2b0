"""The account of a command: made-up processes whose CPU seconds are known; clocks name what exists."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from benchmarks import clocks
from benchmarks.account import describe, run_account
from benchmarks.configs import AccountConfig
from benchmarks.processes import Account, Process

from lola.core.errors import LolaError

ROOT = Path(__file__).parents[3]
BURN = """
import time
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
"""
SIMULATION = BURN + "def write_file():\n    burn(0.3)\n    import slow\n"
DAEMON = "import os\nif os.fork(): os._exit(0)\nos.setsid()\nfrom burn import burn\nburn(0.5)\n"
DRIVER = """
import subprocess, sys
from burn import burn
subprocess.run([sys.executable, "daemon.py"])  # which ends at once, and leaves a process that works
burn(0.2)
from lola.simulate.simulation import write_file
write_file()
sys.exit(3)
"""


def rows(text: str) -> dict[str, str]:
    """The second column of all tables, by the first."""
    return {
        cells[1].strip(" `*"): cells[2].strip()
        for line in text.splitlines()
        if len(cells := line.split("|")) > 3
    }


def test_a_tree_of_processes_is_accounted_for(tmp_path, monkeypatch):
    files = {"burn.py": BURN, "slow.py": "from burn import burn\nburn(0.4)\n", "daemon.py": DAEMON}
    files |= {"driver.py": DRIVER, "lola/simulate/simulation.py": SIMULATION}
    files |= {"lola/__init__.py": "", "lola/simulate/__init__.py": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, ROOT / "experiments" / "account.py", f"{sys.executable} driver.py"]
    command += ["--output", "table.md"]
    # In a process of its own, as the script is: it ends all processes below it, which a test's may be.
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    text = (tmp_path / "table.md").read_text()
    assert text in ended.stdout
    found = rows(text)
    assert float(found["simulation"]) == pytest.approx(0.3, abs=0.1)
    assert float(found["importing"]) == pytest.approx(0.4, abs=0.3)  # and what Python itself imports
    assert float(found["driver"]) > 0.1
    total = float(found["total"])
    assert 1.3 < total < 5  # of which Python's own start may be the most, on a busy machine
    assert total == pytest.approx(float(found["simulation"]) + float(found["all else"]), abs=0.11)
    assert "daemon.py" in found
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LolaError, match=r"table.md exists"):
        run_account(AccountConfig(command=f"{sys.executable} driver.py", output="table.md"))


def test_a_command_that_does_not_exist_is_refused():
    with pytest.raises(LolaError, match="no-such-program is not a program"):
        run_account(AccountConfig(command="no-such-program --help"))


def test_a_quote_that_does_not_end_is_refused():
    with pytest.raises(LolaError, match="is not a command: No closing quotation"):
        run_account(AccountConfig(command="python 'a"))


def test_seconds_are_shared_out():
    """Imports and clocked functions count as such wherever they ran, the rest by the processes' titles."""
    worker = Process(
        Counter({"ray::IDLE": 6.0, "ray::RayTrainWorker.run": 14.0}), 20.0, 10**9, "ray::RayTrainWorker.run"
    )
    driver = Process(Counter({"python sweep.py": 5.0}), 5.0, 2 * 10**9, "python sweep.py")
    raylet = Process(Counter({"/x/ray/core/src/ray/raylet/raylet --a": 2.0}), 2.0, 10**7, "/x/raylet --a")
    processes = {"1-1": driver, "2-1": worker, "3-1": raylet}
    timeline = [(1000.0 + i, 2.0 * i, 2.5 * i) for i in range(11)]
    found = Account(processes, 1.0, 20.0, 0, 3 * 10**9, 10**9, 3, timeline)
    times = {
        "1-1": {"report": (1.0, 1009.0, 1010.0), "imports": (3.0, 1000.0, 1001.0)},
        "2-1": {"imports": (5.0, 1000.0, 1001.0), "training steps": (10.0, 1002.0, 1008.0)},
    }
    text = describe(found, times)
    shown = rows(text)
    expected = {
        "training steps": 10,
        "report": 1,
        "importing": 8,
        "driver": 1,
        "Ray's own processes": 2,
        "total": 28,
    }
    expected |= {
        "idle Ray workers: starting, waiting": 1.5,
        "training workers outside of steps": 3.5,
        "all else": 17,
    }
    assert {name: float(shown[name]) for name in expected} == expected
    assert re.search(r"\(6 s\) the cores were busy with this command for \d+% of the time", text)
    assert "`ray::RayTrainWorker.run` | 1 | 20.0 | 5.0 | 1000" in text


@pytest.mark.parametrize("name", [name for names in clocks.FUNCTIONS.values() for name in names])
def test_clocks_name_functions_that_exist(name):
    module, _, path = name.partition(":")
    body = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text()).body
    for part in path.split("."):
        (found,) = (node for node in body if getattr(node, "name", None) == part)
        body = found.body
