"""Solvers in processes of their own: `lola.simulate.process` runs small modules of this folder."""

import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from lola.core.errors import LolaError
from lola.simulate.process import solver_process

SOLVER = """
    import os, sys, time
    import numpy as np
    from lola.simulate.process import serve

    def build(settings):
        print("a library that talks")
        def solve(initial):
            if initial.sum() < 0:
                return None
            if initial.sum() == 0:
                raise ValueError("nothing to solve")
            if initial.sum() > 100:
                time.sleep(100)
            return settings["factor"] * initial + float("torch" in sys.modules)
        return solve

    if __name__ == "__main__":
        serve(build)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "small_solver.py").write_text(textwrap.dedent(SOLVER))
    monkeypatch.syspath_prepend(tmp_path)
    return "small_solver"


def test_a_solver_answers_again_and_again(module):
    with solver_process(module, {"factor": 2.0}) as solve:
        assert solve(np.array([-1.0])) is None
        for n in (1, 100_000):
            x = np.random.default_rng(n).uniform(1e-6, 1e-4, n)
            assert np.array_equal(solve(x), 2 * x)


def test_a_solver_that_fails_is_quoted(module):
    with (
        pytest.raises(LolaError, match="small_solver ended with code 1: ValueError: nothing to solve"),
        solver_process(module, {"factor": 2.0}) as solve,
    ):
        solve(np.zeros(3))


def test_solvers_exit_with_their_parents(module, tmp_path):
    """A host that is killed while its solver works leaves no solver behind."""
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import numpy as np
        from lola.simulate import process
        start = process.subprocess.Popen
        def popen(*arguments, **options):
            child = start(*arguments, **options)
            print(child.pid, flush=True)
            return child
        process.subprocess.Popen = popen
        with process.solver_process("small_solver", {{"factor": 1.0}}) as solve:
            solve(np.array([1.0]))
            print("solving", flush=True)
            solve(np.array([1000.0]))
    """
    host = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    child = int(host.stdout.readline())
    assert host.stdout.readline() == "solving\n"
    host.kill()
    host.wait()
    host.stdout.close()
    until = time.monotonic() + 30
    while _alive(child):
        assert time.monotonic() < until
        time.sleep(0.1)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
