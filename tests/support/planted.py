"""Secrets that tests put into the environment, and where these must not turn up."""

import uuid
from collections.abc import Iterable
from pathlib import Path

NAMES = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD")
SECRETS = {name: f"planted-{uuid.uuid4().hex}" for name in NAMES}  # nobody else on the machine has these


def command_lines() -> str:
    """The arguments of all processes, which everybody on the machine can read."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended
            continue
    return "\n".join(found)


def holders(folder: Path, secrets: Iterable[str]) -> list[str]:
    """The files under a folder that hold one of these."""
    secrets = [secret.encode() for secret in secrets]
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and any(secret in path.read_bytes() for secret in secrets)
    ]
