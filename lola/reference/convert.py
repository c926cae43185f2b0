"""A published run as a finished stage of ours, which everything here loads.

The stage's fingerprint is that of the network's configuration, of the data it knows and of its weights, so
that a run is converted once. Nothing is written before all of the run was read and understood.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from torch import nn

from lola.core.config import Config, flatten
from lola.data.systems import System
from lola.models.autoencoder_config import AutoencoderConfig, CodecConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig
from lola.reference import check_parts, read_autoencoder
from lola.reference.autoencoders import autoencoder_sizes, build_autoencoder
from lola.reference.dataset import read_system
from lola.reference.emulators import build_emulator, emulator_sizes
from lola.reference.published_run import PublishedRun, read_run
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath
from lola.storage.stages import WEIGHTS, Kind, Stage, atomic_path
from lola.training.checkpoint import save_weights

KINDS = {"ae": "autoencoder", "denoiser": "diffusion", "surrogate": "neural_solver"}
UNKNOWN = "unknown"  # the system of runs that do not record their data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imported(Config):
    """The configuration of an imported stage.

    Arguments:
        model: The network.
        sizes: The sizes that its data decided.
        data: The system that it was trained on, as JSON, where the run records it.
    """

    model: AutoencoderConfig | TransformerAutoencoderConfig | DiffusionConfig | NeuralSolverConfig
    sizes: dict[str, int]
    data: dict[str, Any] | None

    @property
    def random(self) -> bool:
        """Nothing is drawn: weights are imported."""
        return False


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A run that was read and may be written as a stage."""

    run: PublishedRun
    stage: Stage
    config: Imported
    model: nn.Module
    autoencoder: "Conversion | None" = None  # that of an emulator of latents


def read_conversion(folder: Path | str, root: AnyPath, name: str | None = None) -> Conversion:
    """Read a run, and its autoencoder's if it has one, to be written under a storage root.

    Arguments:
        folder: The run's folder.
        root: The storage root.
        name: What the stage is called; else after its network and compression.

    Raises:
        DataError: The run is one that we cannot be.
    """
    run = read_run(folder)
    system = read_system(run)
    if run.kind == "ae":
        return _autoencoder(run, root, system, name)
    inner = read_autoencoder(run)
    check_parts(run, inner, system)
    autoencoder = None if inner is None else _autoencoder(inner, root, read_system(inner) or system)
    model = build_emulator(run)
    config = Imported(model=model.config, sizes=emulator_sizes(run), data=_to_json(system))
    if autoencoder is None:
        space, inputs = "pixel", {}
    else:
        space = _rate(autoencoder.config)
        inputs = {"autoencoder": autoencoder.stage.fingerprint}
    what = name or f"{KINDS[run.kind]}-{space}"
    stage = _stage(run, root, "emulators", what, system, config, inputs)
    return Conversion(run, stage, config, model, autoencoder)


def write_conversion(conversion: Conversion) -> bool:
    """Write a run as a finished stage, its autoencoder first; returns whether there was something to write.

    Raises:
        StorageError: The storage is full or read-only; the stage is not finished then.
    """
    inner, stage = conversion.autoencoder, conversion.stage
    written = inner is not None and write_conversion(inner)
    with stage.logged_lease(print):
        if stage.finished:
            return written
        event_log, tags = EventLog.resume(stage.folder), _tags(conversion)
        event_log.describe(name=stage.what, tags=tags, parameters=tags | flatten(conversion.config.to_json()))
        event_log.status("RUNNING")
        with atomic_path(stage.folder / WEIGHTS) as tmp_path:
            save_weights(tmp_path, conversion.model)
        details = {"autoencoder": None if inner is None else inner.stage.name}
        stage.commit(
            model=conversion.config.to_json()["model"],
            sizes=conversion.config.sizes,
            data=conversion.config.data,
            published={name: conversion.run.section(name) for name in ("dataset", "trajectory")},
            **(details if stage.kind == "emulators" else {}),
        )
        event_log.model(stage.folder / WEIGHTS, f"{stage.system}-{stage.what}")
        event_log.status("FINISHED")
    return True


def _autoencoder(
    run: PublishedRun, root: AnyPath, system: System | None, name: str | None = None
) -> Conversion:
    model = build_autoencoder(run)
    assert isinstance(model.config, AutoencoderConfig | TransformerAutoencoderConfig)
    config = Imported(model=model.config, sizes=autoencoder_sizes(run), data=_to_json(system))
    what = name or f"autoencoder-{_rate(config)}"
    return Conversion(run, _stage(run, root, "autoencoders", what, system, config, {}), config, model)


def _tags(conversion: Conversion) -> dict[str, Any]:
    """The run's description for the tracking server."""
    stage = conversion.stage
    codec = conversion if stage.kind == "autoencoders" else conversion.autoencoder
    compression = 1.0
    if codec is not None:
        assert isinstance(codec.config.model, CodecConfig)
        compression = codec.config.model.compression(**codec.config.sizes)
    return {
        "system": stage.system,
        "stage": stage.kind.removesuffix("s"),
        "model": KINDS[conversion.run.kind],
        "space": "pixel" if codec is None else "latent",
        "compression": f"{compression:g}",
    }


def _rate(config: Imported) -> str:
    assert isinstance(config.model, CodecConfig)
    return f"{config.model.rate(config.sizes['spatial'])}c{config.model.latent_channels}"


def _stage(
    run: PublishedRun,
    root: AnyPath,
    kind: Kind,
    what: str,
    system: System | None,
    config: Imported,
    inputs: dict[str, str],
) -> Stage:
    return Stage(
        root=root,
        kind=kind,
        system=UNKNOWN if system is None else system.name,
        what=what,
        config=config,
        inputs={"weights": run.digest(), **inputs},
    )


def _to_json(system: System | None) -> dict[str, Any] | None:
    return None if system is None else json.loads(json.dumps(dataclasses.asdict(system)))
