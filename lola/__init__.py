"""LOLA: latent-space physics emulation on Ray.

The public interface, whose modules are imported when a name is first used:

    open_well            trajectories of a dataset in The Well's format
    open_latents         trajectories of a latent cache
    load_autoencoder     a trained autoencoder, by stage, MLflow run or published run
    load_emulator        a trained emulator, likewise
    rollout              an ensemble of the states that follow
    score                its errors, spread and spectra against the truth
    write_ensemble       an ensemble as a file in The Well's format
    run_sweep            simulations to trained models and a report
    write_well           arrays as a dataset in The Well's format
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lola.workflows.api import (
        load_autoencoder,
        load_emulator,
        open_latents,
        open_well,
        rollout,
        run_sweep,
        score,
        write_ensemble,
        write_well,
    )

__all__ = [
    "load_autoencoder",
    "load_emulator",
    "open_latents",
    "open_well",
    "rollout",
    "run_sweep",
    "score",
    "write_ensemble",
    "write_well",
]
__version__ = "0.1.0"

if os.path.expanduser("~") == "~":  # a user without a home, with which modules of Ray and MLflow do not load
    os.environ["HOME"] = "/"  # as containers give it to users whom they do not know


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("lola.workflows.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
