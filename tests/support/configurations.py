"""The files of cluster/, with their `${...}` filled in as the READMEs do by envsubst."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHERS = sorted(CLUSTER.glob("*/cluster.yaml"))
MANIFESTS = sorted((CLUSTER / "kuberay").glob("*.yaml"))
POLICIES = sorted(CLUSTER.glob("*/*.json"))
READMES = sorted(CLUSTER.rglob("README.md"))
SCRIPTS = [CLUSTER / "start_mlflow.sh", CLUSTER / "slurm" / "sweep.sbatch"]

PLACEHOLDER = re.compile(r"\$\{([A-Z_]+)\}")


def fill(path: Path, **values: str) -> str:
    """The text of a file; what has no value stands for itself, in lower case."""
    return PLACEHOLDER.sub(
        lambda match: values.get(match[1], match[1].lower().replace("_", "-")), path.read_text()
    )


def documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of a file."""
    return list(yaml.safe_load_all(fill(path)))


def blocks(readme: Path) -> list[str]:
    """The shell commands that a README tells people to run."""
    return re.findall(r"^```console\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL)
