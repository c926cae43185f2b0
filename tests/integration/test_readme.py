"""Every code block of the README, run in its order, small, from a smoke sweep on.

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
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from mlflow import MlflowClient
from objectstore import environment, free_port
from readme import ROOT, Block, blocks, reason_not_to_run, smaller

pytestmark = [pytest.mark.slow, pytest.mark.long]
BLOCKS = blocks()
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
        self.storage = folder / "storage"
        self.ports = {"mlflow_port": free_port(), "ray_port": free_port()}
        self.servers: list[subprocess.Popen] = []

    def fill_in(self, command: str) -> str:
        """A command with the names of what exists here by now."""
        found = dict(self.ports, storage=self.storage, well=self.storage / "well-smoke")
        if "{file}" in command:
            found["file"] = next(iter(sorted(self.storage.glob("well-smoke/*open*/data/test/*gamma_1.4*"))))
        for stage in ("autoencoder", "emulator"):
            if f"{{{stage}_run}}" in command:
                found[f"{stage}_run"] = self.run_of(stage)
        return command.format(**found)

    def run_of(self, stage: str) -> str:
        """`runs:/ID` of an autoencoder or of a diffusion model in MLflow."""
        client = MlflowClient(f"sqlite:///{self.storage}/mlflow/mlflow.db")
        experiment = client.get_experiment_by_name("lola/euler")
        query = f"tags.`lola.stage` = '{stage}'" + (
            " and tags.`lola.model` = 'diffusion'" if stage == "emulator" else ""
        )
        return f"runs:/{client.search_runs([experiment.experiment_id], query)[-1].info.run_id}"

    def run(self, command: str) -> str:
        """The output of a command that must end well."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"
        assert "Traceback" not in done.stdout, f"{command}\n{done.stdout[-4000:]}"
        return done.stdout

    def serve(self, command: str, address: str) -> None:
        """Start a server, and wait until it answers."""
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.variables, start_new_session=True
        )
        self.servers.append(server)
        for _ in range(240):
            assert server.poll() is None, f"{command} ended"
            try:
                urllib.request.urlopen(address, timeout=5).close()
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
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "experiments", folder / "experiments", ignore=shutil.ignore_patterns("results"))
    sources = (ROOT, ROOT / "tests" / "support", ROOT / "tests" / "unit" / "reference")
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))
    }
    shell = Shell(
        folder,
        inherited
        | environment(object_store)
        | {
            "HOME": str(folder),
            "LOLA_STORAGE": str(folder / "storage"),
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
    "block", [b for b in BLOCKS if b.language == "console"], ids=lambda block: f"line-{block.line}"
)
def test_commands(block: Block, shell: Shell, request):
    if "s3://" in block.text:
        request.getfixturevalue("bucket")
    before = dict(shell.variables)
    for command in block.commands:
        if reason_not_to_run(command) or missing_solver(command):
            continue
        command = shell.fill_in(smaller(command))
        if command.startswith("export "):
            shell.variables |= dict(pair.split("=", 1) for pair in shlex.split(command)[1:])
        elif command.startswith("mlflow ui"):
            shell.serve(command, f"http://127.0.0.1:{shell.ports['mlflow_port']}/health")
        elif command.startswith("ray start"):
            shell.serve(f"{command} --block", f"http://127.0.0.1:{shell.ports['ray_port']}/api/version")
        else:
            shell.run(command)
    shell.variables = before


PYTHON = {
    "Datasets(": lambda shell, code: code.replace(
        "hf://datasets/polymathic-ai", str(shell.storage / "well-smoke")
    ).replace("shear_flow", "euler_multi_quadrants_openBC"),
    "read_table(": lambda shell, code: re.sub(
        r'"latents/\S+"', repr(str(next(shell.storage.glob("latents/*/train/shard-00000.parquet")))), code
    ),
    "write_ensemble(": lambda shell, code: code.replace("f16c32", "f8c16").replace(
        '"gamma_1.4.hdf5"', repr(shell.fill_in("{file}"))
    ),
    "load_emulator(": lambda shell, code: (
        WRITE_RUNS
        + "fields, parameters = torch.rand(16, 5, 1, 16, 16), torch.randn(16, 5)\n"
        + code.replace("runs/dm/...", "runs/dm")
    ),
}


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: f"line-{block.line}"
)
def test_python(block: Block, shell: Shell):
    (adapt,) = [adapt for name, adapt in PYTHON.items() if name in block.text]
    script = shell.folder / f"line_{block.line}.py"
    script.write_text(adapt(shell, textwrap.dedent(block.text)))
    shell.run(f"{shlex.quote(sys.executable)} {script.name}")
