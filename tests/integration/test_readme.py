"""Every code block of the READMEs, run in its order, small, from a smoke sweep on.

`tests/support/readme.py` says what is run instead of what takes long, and what cannot be run here.
"""

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from mlflow import MlflowClient
from objectstore import environment, free_port
from readme import ROOT, RUN, Block, blocks, reason_not_to_run, smaller

pytestmark = [pytest.mark.slow, pytest.mark.long]
BLOCKS = [block for path in RUN for block in blocks(path)]
LIMIT_S = 900
SOLVERS = {"rayleigh_benard": "dedalus", "turbulence_gravity_cooling": "astronomix"}
WRITE_RUNS = """
from pathlib import Path
import torch
from runs import write_autoencoder, write_emulator
torch.manual_seed(0)
folder = write_emulator(Path("runs/dm"), "denoiser", ae_run="somewhere")
write_autoencoder(folder / "autoencoder")
"""


class Shell:
    """A user's shell: a folder, variables that were exported, and servers that were started in it."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder, self.variables = folder, variables
        self.storage = folder.with_name("storage")  # a job is sent the whole folder
        self.ports = {"mlflow_port": free_port(), "ray_port": free_port()}
        self.servers: list[subprocess.Popen] = []

    def fill_in(self, command: str) -> str:
        """A command with the names of what exists here by now."""
        found = dict(self.ports, storage=self.storage, well=self.storage / "well-smoke")
        if "{file}" in command:
            found["file"] = next(iter(sorted(self.storage.glob("well-smoke/*open*/data/test/*gamma_1.4*"))))
        runs = {"autoencoder": "autoencoder", "emulator": "diffusion", "ensemble": "crps_ensemble"}
        for name, model in runs.items():
            if f"{{{name}_run}}" in command:
                found[f"{name}_run"] = self.run_of(model)
        return command.format(**found)

    def run_of(self, model: str) -> str:
        """`runs:/ID` of the training of a model in MLflow."""
        client = MlflowClient(f"sqlite:///{self.storage}/mlflow/mlflow.db")
        experiment = client.get_experiment_by_name("lola/euler")
        stage = "autoencoder" if model == "autoencoder" else "emulator"
        query = f"tags.`lola.stage` = '{stage}' and tags.`lola.model` = '{model}'"
        return f"runs:/{client.search_runs([experiment.experiment_id], query)[-1].info.run_id}"

    def newest(self, kind: str, file: str) -> str:
        """A file of a stage that was finished here last."""
        found = sorted(self.storage.glob(f"{kind}/euler-*{file}"), key=lambda path: path.stat().st_mtime)
        return str(found[-1])

    def run(self, command: str) -> str:
        """The output of a command that must end well."""
        deadline = time.monotonic() + 120
        while True:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LIMIT_S,
            )
            # A cluster's head answers before the process that takes its jobs is there
            if "No available agent" not in done.stdout or time.monotonic() > deadline:
                break
            time.sleep(2)
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"
        assert "Traceback" not in done.stdout, f"{command}\n{done.stdout[-4000:]}"
        return done.stdout

    def serve(self, command: str, address: str) -> None:
        """Start a server, and wait until it answers."""
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.variables, start_new_session=True
        )
        self.servers.append(server)
        for _ in range(600):
            assert server.poll() is None, f"{command} ended"
            try:
                urllib.request.urlopen(address, timeout=5).close()
                return
            except urllib.error.HTTPError:  # an answer: whoever has no token is refused
                return
            except OSError:
                time.sleep(0.5)
        pytest.fail(f"{command} does not answer")

    def stop(self) -> None:
        """Stop all servers."""
        for server in self.servers:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


@pytest.fixture(scope="module")
def shell(tmp_path_factory, object_store) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("readme") / "repository"
    shutil.copytree(ROOT / "experiments", folder / "experiments", ignore=shutil.ignore_patterns("results"))
    sources = (ROOT, ROOT / "tests" / "support")
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))
    }
    shell = Shell(
        folder,
        inherited
        | environment(object_store)
        | {
            "HOME": str(folder.parent),
            "LOLA_STORAGE": str(folder.with_name("storage")),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
        },
    )
    yield shell
    shell.stop()


@pytest.fixture
def bucket(shell, object_store) -> None:
    """A bucket with the data of the smoke sweep."""
    variables = environment(object_store)
    files = s3fs.S3FileSystem(
        key=variables["AWS_ACCESS_KEY_ID"],
        secret=variables["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=object_store,
    )
    if not files.exists("bucket"):
        files.mkdir("bucket")
        files.put(str(shell.storage / "well-smoke"), "bucket/the-well", recursive=True)


def missing_solver(command: str) -> bool:
    """Whether a command needs a solver that is not installed."""
    needed = [package for system, package in SOLVERS.items() if f" {system}" in command]
    return any(importlib.util.find_spec(package) is None for package in needed)


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "console"], ids=lambda block: block.name
)
def test_commands(block: Block, shell: Shell, request):
    if "s3://" in block.text:
        request.getfixturevalue("bucket")
    before = dict(shell.variables)
    for command in block.commands:
        if reason_not_to_run(command) or missing_solver(command):
            continue
        command = shell.fill_in(smaller(command))
        if command.startswith("ray job "):
            shell.variables["RAY_AUTH_MODE"] = "token"  # as the block that has started the cluster
        if command.startswith("export "):
            shell.variables |= dict(pair.split("=", 1) for pair in shlex.split(command)[1:])
        elif "mlflow server" in command:
            shell.serve(command, f"http://127.0.0.1:{shell.ports['mlflow_port']}/health")
        elif command.startswith("ray start"):
            shell.serve(f"{command} --block", f"http://127.0.0.1:{shell.ports['ray_port']}/api/version")
        else:
            shell.run(command)
    shell.variables = before


PLACES = (
    (r'"/data/the_well/datasets"', lambda shell: repr(str(shell.storage / "well-smoke"))),
    (r'Path\.home\(\) / "lola-storage/well"', lambda shell: repr(str(shell.storage / "well-smoke"))),
    (r'"experiments/results/models"', lambda shell: repr(str(ROOT / "experiments" / "results" / "models"))),
    (
        r'"/data/mine", "my_dataset"',
        lambda shell: f'{str(shell.storage / "well-smoke")!r}, "euler_multi_quadrants_openBC"',
    ),
    (r"f8c32", lambda shell: "f8c16"),
    (r'"gamma_1\.4\.hdf5"', lambda shell: repr(shell.fill_in("{file}"))),
    (r"stop=split\.steps, stride=4", lambda shell: "stop=split.steps, stride=2"),  # of `smoke`: 40 states
    (r'"(\w+)/euler-\S*\.\.\.(\S*)"', lambda shell: lambda match: repr(shell.newest(match[1], match[2]))),
    (r"runs/dm/\.\.\.", lambda shell: "runs/dm"),
)
"""Pairs of a pattern and what stands there instead, given the shell."""
BEFORE = {
    "runs/dm": WRITE_RUNS + "fields, parameters = torch.rand(5, 1, 16, 16), torch.randn(5)\n",
}
"""Code before blocks that hold a text."""


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: block.name)
def test_python(block: Block, shell: Shell):
    code = textwrap.dedent(block.text)
    for pattern, replacement in PLACES:
        code = re.sub(pattern, replacement(shell), code)
    code = "".join(before for text, before in BEFORE.items() if text in code) + code
    script = shell.folder / f"{block.path.parent.name}_{block.line}.py"
    script.write_text(code)
    shell.run(f"{shlex.quote(sys.executable)} {script.name}")


def test_the_example_of_run_sweep(shell: Shell):
    """In its docstring, as `tests/unit/workflows/test_api.py` runs those of the other functions."""
    code = (
        "import doctest, lola; (example,) = doctest.DocTestParser().get_examples(lola.run_sweep.__doc__); "
        "assert eval(example.source.split('#')[0]) == eval(example.want)"
    )
    shell.run(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}")
