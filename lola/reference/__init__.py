"""Import of runs that the authors of `Lost in Latent Space` published.

A run is a folder with `config.yaml` and `state.pth`; an emulator's run holds its autoencoder's in
`autoencoder/`. The architecture is read from the section `ae`, `denoiser` or `surrogate`, sizes that its data
decided from there or from the weights, the data from `dataset` and `trajectory`. Sections that only describe
how it was trained are ignored; within the others, an option that we do not know is an error, since it may
change what the network computes. Options that a run does not name have the values of the published networks.
"""

from pathlib import Path
from typing import Any

from lola.data.systems import System
from lola.emulation.emulator import Emulator
from lola.emulation.sampling_config import SamplerConfig
from lola.models.autoencoder import Autoencoder
from lola.models.diffusion import Diffusion, WindowDenoiser
from lola.models.neural_solver import NeuralSolver
from lola.reference.autoencoders import autoencoder_sizes, build_autoencoder
from lola.reference.dataset import read_system
from lola.reference.emulators import (
    build_denoiser,
    build_emulator,
    build_neural_solver,
    emulator_sizes,
)
from lola.reference.published_run import PublishedRun, read_run

__all__ = ["load_autoencoder", "load_denoiser", "load_emulator", "load_neural_solver", "load_published"]

AUTOENCODER = "autoencoder"


def load_published(folder: Path | str) -> Autoencoder | Diffusion | NeuralSolver:
    """The network of any published run, in evaluation mode.

    Raises:
        DataError: The folder is not a run, its configuration is one that we cannot be, or its weights are
            others than its configuration gives.
    """
    run = read_run(folder)
    return build_autoencoder(run) if run.kind == "ae" else build_emulator(run)


def load_autoencoder(folder: Path | str) -> Autoencoder:
    """The autoencoder of a run: `encode` maps standardised states `(B, C, *grid)`, `decode` latents.

    Arguments:
        folder: The autoencoder's run.

    Raises:
        DataError: As `load_published`, or it is an emulator's run.
    """
    return build_autoencoder(_require_kind(read_run(folder), "ae"))


def load_denoiser(folder: Path | str) -> WindowDenoiser:
    """The denoiser of a run, called `(x_t, t, label=, mask=)`, with the `schedule` it was trained on.

    Raises:
        DataError: As `load_published`, or it is another run.
    """
    return build_denoiser(_require_kind(read_run(folder), "denoiser")).denoiser


def load_neural_solver(folder: Path | str) -> NeuralSolver:
    """The neural solver of a run, called `(x, mask, label)`.

    Raises:
        DataError: As `load_published`, or it is another run.
    """
    return build_neural_solver(_require_kind(read_run(folder), "surrogate"))


def load_emulator(folder: Path | str, sampler: SamplerConfig | None = None) -> Emulator:
    """The emulator of a run, with its autoencoder and the system that it knows, ready to roll out.

    Arguments:
        folder: The emulator's run; the run of its autoencoder is its folder `autoencoder`, if it has one.
        sampler: How a diffusion model draws.

    Raises:
        DataError: As `load_published`, or network, autoencoder and data do not belong together.
    """
    run = _require_kind(read_run(folder), "denoiser", "surrogate")
    inner = read_autoencoder(run)
    system = read_system(run)
    check_parts(run, inner, system)
    return Emulator(
        model=build_emulator(run),
        autoencoder=None if inner is None else build_autoencoder(inner),
        sampler=sampler or SamplerConfig(),
        system=system,
    )


def read_autoencoder(run: PublishedRun) -> PublishedRun | None:
    """The run of an emulator's autoencoder; None in pixel space.

    Raises:
        DataError: The configuration names it but it does not exist, or it is a run of another kind.
    """
    folder = run.folder / AUTOENCODER
    if folder.exists():
        return _require_kind(read_run(folder), "ae")
    if run.config.get("ae_run"):
        raise run.error(f"it emulates latents, but {folder} is missing; fetch the run of its autoencoder")
    return None


def check_parts(run: PublishedRun, autoencoder: PublishedRun | None, system: System | None) -> None:
    """Raise `DataError` unless an emulator, its autoencoder and its data belong together."""
    sizes = emulator_sizes(run)
    fields: dict[str, Any] = {}
    if system is not None:
        fields = {"channels": len(system.channels), "spatial": system.dimensions}
    what, expected = "the fields", fields
    if autoencoder is not None:
        inner = autoencoder_sizes(autoencoder)
        _compare(autoencoder, inner, what, fields)
        latent_channels = autoencoder.section("ae").get("lat_channels")
        what, expected = "the latents", {"channels": latent_channels, "spatial": inner["spatial"]}
        theirs = read_system(autoencoder)
        if system is not None and theirs is not None:
            for name in ("fields", "mean", "std"):
                if getattr(system, name) != getattr(theirs, name):
                    raise run.error(f"dataset has other {name} than {autoencoder.folder / 'config.yaml'}")
    _compare(run, sizes, what, expected)
    codes = 0 if system is None else 2 * system.dimensions
    if 0 < sizes["parameters"] < codes:
        raise run.error(f"label_features is {sizes['parameters']}, less than the {codes} boundary codes")


def _compare(run: PublishedRun, sizes: dict[str, int], what: str, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if sizes[name] != value:
            raise run.error(f"its network has {name} {sizes[name]}, {what} {value}; they do not fit")


def _require_kind(run: PublishedRun, *kinds: str) -> PublishedRun:
    if run.kind not in kinds:
        inner = run.folder / AUTOENCODER
        hint = f"; its autoencoder is {inner}" if kinds == ("ae",) and inner.exists() else ""
        raise run.error(f"it is a run of {run.kind}, not of {' or '.join(kinds)}{hint}")
    return run
