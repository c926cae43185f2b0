"""What `make` says while it installs, with a pip that prints what pip does, and installs nothing."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = r"""#!/bin/sh
[ "$2" = --quiet ] && exit 0
cat <<'END'
Obtaining file:///home/you/lola
  Installing build dependencies: started
  Preparing editable metadata (pyproject.toml): started
Collecting torch<3,>=2.9 (from lola==0.1.0)
  Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (30 kB)
Collecting einops~=0.8 (from lola==0.1.0)
  Using cached einops-0.8.1-py3-none-any.whl.metadata (13 kB)
Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (915.2 MB)
  Downloading https://host.example/nvidia_cudnn_cu13-9.1-py3-none-manylinux_2_27_x86_64.whl (366.1 MB)
Using cached ray-2.60.0-cp311-cp311-manylinux2014_x86_64.whl (72.4 MB)
Downloading numpy-2.3.5-cp311-cp311-manylinux_2_28_x86_64.whl (16.9 MB)
Downloading einops-0.8.1-py3-none-any.whl (64 kB)
Building wheels for collected packages: lola, clawpack
  Building wheel for clawpack (pyproject.toml): started
  Building wheel for clawpack (pyproject.toml): finished with status 'done'
Installing collected packages: torch, ray, numpy, einops, clawpack
END
[ "$PIP_FAILS" ] && { echo "ERROR: No matching distribution found for torch" >&2; exit 1; }
echo "Successfully installed clawpack-5.14.0 torch-2.14.1"
"""
SHOWN = [
    "  Downloading torch 2.14.1, 915.2 MB",
    "  Downloading nvidia_cudnn_cu13 9.1, 366.1 MB",
    "  Using cached ray 2.60.0, 72.4 MB",
    "  compiling clawpack",
    "  copying all packages into {}, the last step, which takes minutes",
]


@pytest.fixture
def make(tmp_path):
    """Runs `make` for a mark of a virtual environment that has nothing but that pip."""
    programs = {
        "venv/bin/pip": PIP,
        "venv/bin/python": "",
        "system/gfortran": "",
        "system/mpicc": "#!/bin/sh\n",
    }
    for name, text in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    venv = tmp_path / "venv"

    def run(mark, **environment):
        variables = {**os.environ, "PATH": f"{tmp_path / 'system'}:{os.environ['PATH']}", **environment}
        command = [
            "make",
            "-C",
            ROOT,
            "--no-print-directory",
            f"VENV={venv}",
            f"FFTW_LIBRARY={venv}",
            venv / mark,
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        return done, venv

    return run


@pytest.mark.parametrize("mark", [".demo", ".dev", ".simulators"])
def test_an_installation_says_what_it_does_in_few_lines(make, mark):
    done, venv = make(mark)
    assert done.returncode == 0, done.stderr
    first, *shown, last = done.stdout.splitlines()
    assert first.startswith(f"installing LOLA and what it needs into {venv}: 7 GB")
    assert shown == [line.format(venv) for line in SHOWN]
    assert last == "  installed"
    assert (venv / mark).exists()


def test_an_installation_that_fails_is_no_success(make):
    done, venv = make(".demo", PIP_FAILS="1")
    assert done.returncode != 0
    assert "No matching distribution found for torch" in done.stderr
    assert "  installed" not in done.stdout
    assert not (venv / ".demo").exists()
