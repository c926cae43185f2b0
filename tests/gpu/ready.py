"""Print in one line why the tests of this folder cannot run here, if they cannot."""

import importlib.util
import sys

NEEDED = ("torch", "numpy", "pytest", "azula", "heavyball", "pydantic", "upath", "h5py", "safetensors")


def hindrance() -> str | None:
    """Why not, None if they can."""
    if sys.version_info < (3, 11):  # noqa: UP036
        return f"Python {sys.version.split()[0]} is too old; give one from 3.11 on: make PYTHON=... gputest"
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return f"{sys.executable} lacks {', '.join(missing)}; see tests/gpu/README.md"
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} of {sys.executable} sees no CUDA device here"
    return None


if __name__ == "__main__":
    reason = hindrance()
    sys.exit(reason and f"gputest: {reason}")
