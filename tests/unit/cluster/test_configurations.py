"""Scripts, image, commands of the READMEs: linters, pins, and no secret in any file."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from configurations import CLUSTER, LAUNCHERS, MANIFESTS, PLACEHOLDER, READMES, ROOT, SCRIPTS, blocks, fill
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILES = [path for path in sorted(CLUSTER.rglob("*")) if path.is_file()]
SECRETS = {
    "an AWS key": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "a private key": r"PRIVATE KEY",
    "a token": r"\b[0-9a-fA-F]{32,}\b",
    "a password in a URL": r"://[^/\s:@$]+:[^/\s@$]+@",
    "a password": r"(?i)(password|secret|token)[a-z_]*\s*[=:]\s*[\"']?(?!\$|\$\()[A-Za-z0-9+/]{8,}",
}
MEANT = ("mlflow_tracking_password", "ray-tokens", "secretName: lola-ray-token")


def tool(name: str) -> str:
    installed = Path(sys.executable).with_name(name)
    path = str(installed) if installed.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: pip install '.[dev]'")
    return path


def check(command: list[str], text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(path):
    assert path.stat().st_mode & 0o100 or path.suffix == ".sbatch"
    check([tool("shellcheck"), "--severity=style", str(path)])


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.parent.name)
def test_commands_of_nodes_pass_shellcheck(path):
    config = yaml.safe_load(fill(path))
    commands = [line for key, lines in config.items() if key.endswith("_commands") for line in lines]
    assert len(commands) > 8
    script = "#!/bin/bash\nRAY_HEAD_IP=10.0.0.1\n" + "\n".join(commands) + "\n"
    check([tool("shellcheck"), "--exclude=SC2088", "-"], script)  # Ray expands ~ itself


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_commands_of_the_readmes_pass_shellcheck(path):
    commands = blocks(path)
    assert commands
    for block in commands:
        check(
            [tool("shellcheck"), "--shell=bash", "--exclude=SC1091,SC2016,SC2034,SC2154,SC2155", "-"], block
        )


def test_the_image_passes_hadolint():
    check([tool("hadolint"), str(CLUSTER / "Dockerfile")])


def test_the_image_runs_without_root_and_with_tokens():
    lines = (CLUSTER / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", lines, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-bookworm", base) for base in bases)
    assert re.findall(r"^USER (\S+)", lines, re.MULTILINE) == ["1000:1000"]
    assert "RAY_AUTH_MODE=token" in lines.split("FROM")[-1]


def test_every_requirement_is_pinned_to_a_version_that_satisfies_it():
    pins = [line for line in (CLUSTER / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    versions = {}
    for pin in pins:
        name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", pin).groups()
        versions[canonicalize_name(name)] = version
    assert len(versions) == len(pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["simulate"], *extras["remote"], *extras["cluster"]]
    for requirement in map(Requirement, needed):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} and {version}"
    assert versions["fsspec"] == versions["s3fs"] == versions["gcsfs"]


def test_the_image_holds_what_it_copies():
    context = (ROOT / ".dockerignore").read_text().split()
    for line in re.findall(
        r"^COPY (?!--from)(?:--\S+ )?(.+)$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE
    ):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert any(entry.lstrip("!").startswith(source) for entry in context), f"{source} is left out"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CLUSTER)))
def test_no_file_holds_a_secret(path):
    for line in path.read_text().splitlines():
        for what, pattern in SECRETS.items():
            if not any(word in line for word in MEANT):
                assert not re.search(pattern, line), f"{path.name} holds {what}: {line}"


def test_a_planted_secret_would_be_found():
    planted = (
        "AKIA" + "A" * 16,
        "https://me:secret@host",
        "password: hunter2hunter2",
        "RAY_AUTH_TOKEN=" + "a1" * 16,
    )
    for line in planted:
        assert any(re.search(pattern, line) for pattern in SECRETS.values()), line


@pytest.mark.parametrize("path", [*LAUNCHERS, *MANIFESTS], ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_readme_installed_a_file_defines_and_fills_in_its_placeholders(path):
    readme = (path.parent / "README.md").read_text()
    (filled,) = re.findall(r"""envsubst "\$\(printf '\$%s ' ([A-Z_\s\\]+)\)\"""", readme)
    for name in PLACEHOLDER.findall(path.read_text()):
        assert re.search(rf"export {name}=", readme), f"{name} is not defined"
        assert name in filled.replace("\\", " ").split(), f"{name} is not filled in"
