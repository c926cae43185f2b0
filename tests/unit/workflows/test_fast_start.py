"""Options are parsed before large libraries are imported, so that help and refusals come at once."""

import json
import subprocess
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
HEAVY = {
    *("torch", "ray", "mlflow", "pandas", "matplotlib", "scipy", "azula", "heavyball", "pyarrow"),
    *("imageio", "altair", "sklearn", "jax"),
}
IMPORT_ALL = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    importlib.import_module(name)
    found[name] = sorted(sys.modules)
print(json.dumps(found))
"""


def test_no_program_imports_large_libraries_before_it_has_its_options():
    names = sorted(path.stem for path in EXPERIMENTS.glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        cwd=EXPERIMENTS,
        capture_output=True,
        text=True,
        check=True,
    )
    faults = {name: sorted(HEAVY & set(modules)) for name, modules in json.loads(done.stdout).items()}
    assert names
    assert faults == {name: [] for name in names}


def test_mlflow_is_imported_only_where_a_model_is_fetched():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, "lola.emulation.ensembles", "lola.workflows.api"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not any("mlflow" in modules for modules in json.loads(done.stdout).values())
