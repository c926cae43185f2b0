"""Small trained models that are kept with the source, so that there is an emulator without any training.

    autoencoders/euler-autoencoder-f8c64-0123abcd/    manifest.json, model.safetensors
    emulators/diffusion/                              likewise; its manifest has the scores
    initial.hdf5                                      states of trajectories that no model was trained on

The folder is a storage root of its own. Weights are of float16, which halves the files; networks compute in
float32 as before.
"""

import math
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.compute as pc
import torch
from torch import nn

from lola.core.config import require
from lola.core.errors import StorageError
from lola.core.strict_json import dumps
from lola.core.waiting import Log
from lola.data.statistics import statistics_folder
from lola.data.well.datasets import Datasets
from lola.data.well.excerpt import write_excerpt
from lola.data.well.find import find_system
from lola.data.well.splits import open_well_file
from lola.emulation.emulator import load_autoencoder, load_emulator
from lola.emulation.ensemble_config import EnsembleConfig
from lola.emulation.inference_config import Weights
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.tables.stored import read_table
from lola.models.kinds import KINDS
from lola.storage.integrity import result_sizes
from lola.storage.remote import AnyPath, require_new, to_path
from lola.storage.stages import (
    WEIGHTS,
    atomic_path,
    read_manifest,
    read_manifests,
    resolve_storage,
    to_location,
    well_folder,
)
from lola.training.checkpoint import save_weights
from lola.workflows.api import rollout, score
from lola.workflows.export_config import ExportConfig

C = TypeVar("C", bound=EnsembleConfig)

INITIAL = "initial.hdf5"
MEMBERS, SEED = 8, 0  # of the ensembles that are scored
MAX_CHANGE = 0.02  # of the VRMSE, by the rounding of weights
MAX_BYTES = 10_000_000  # of all files, which every clone of the source holds
EVALUATED = ("crps_relative", "crps")  # what emulators are chosen by; earlier ones have the latter alone


def find_pretrained(folder: Path, kind: str = "") -> tuple[Path, Path]:
    """The stage of a kept emulator and the file of initial states.

    Arguments:
        folder: As `export_models` writes it.
        kind: The emulator's kind; without it, that with the least CRPS of those that draw ensembles.

    Raises:
        StorageError: There is none.
    """
    found = {path.parent.name: path.parent for path in sorted(folder.glob("emulators/*/manifest.json"))}
    if not found:
        raise StorageError(
            f"{folder} has no trained models; export those of a finished sweep with export_models.py, or "
            "give EMULATOR and INITIAL"
        )
    if not kind:
        drawn = {name: path for name, path in found.items() if KINDS[name].stochastic}
        kind = min(drawn or found, key=lambda name: _recorded_crps(found[name]))
    if kind.replace("-", "_") not in found:
        raise StorageError(
            f"--pretrained: {folder} has no emulator of the kind {kind}; name one of {', '.join(found)}, "
            "before a file of initial states if you have one"
        )
    return found[kind.replace("-", "_")], folder / INITIAL


def choose_pretrained(folder: Path, config: C) -> C:
    """An ensemble's configuration with a kept emulator of the kind that it names, if any.

    Initial states and the sampler are those of the emulator, unless it has others.

    Raises:
        StorageError: There is none.
    """
    emulator, initial = find_pretrained(folder, config.emulator)
    named = {"emulator": str(emulator), "initial": config.initial or str(initial)}
    sampler = recorded_sampler(emulator) if config.sampler == SamplerConfig() else None
    return config.replace(**named, sampler=sampler or config.sampler)


def recorded(emulator: AnyPath) -> dict[str, Any]:
    """The scores of a kept emulator, with the `sampler`, `members` and `seed` that they were drawn with."""
    scores: dict[str, Any] = read_manifest(emulator)["scores"]
    return scores


def _recorded_crps(emulator: AnyPath) -> float:
    """The mean over ranges of lead times of the CRPS that a kept emulator had in its sweep."""
    return _mean_crps(recorded(emulator)["evaluation"])


def recorded_sampler(emulator: AnyPath) -> SamplerConfig | None:
    """The sampler that a kept emulator was chosen with, if it has one."""
    found = recorded(emulator)["sampler"]
    return None if found is None else SamplerConfig.from_json(found)


def score_kept(
    emulator: AnyPath, initial: Path, sampler: SamplerConfig | None, weights: Weights = "raw"
) -> float:
    """The VRMSE of ensembles from the first state of each trajectory of a file, in the mean over all.

    Of trajectories, fields and states; members and seed are those of this module.
    """
    loaded = load_emulator(emulator, sampler, weights)
    assert loaded.system is not None
    split, stride = open_well_file(initial, loaded.system), read_manifest(emulator)["config"]["stride"]
    members, evolving, errors = MEMBERS if loaded.stochastic else 1, list(loaded.system.evolving), []
    for index in range(len(split.trajectories)):
        truth, parameters = split.read(index, 0, split.steps, stride), split.parameters(index)
        drawn = rollout(loaded, truth[:, :1], parameters, truth.shape[1] - 1, members=members, seed=SEED)
        errors.append(score(truth[evolving, 1:], drawn[:, evolving])["vrmse"].mean())
    return float(torch.stack(errors).mean())


def export_models(config: ExportConfig, log: Log = print) -> Path:
    """Write the best emulator of each kind, by CRPS, with its autoencoder and initial states.

    Evaluations of the validation split choose, if there are any; else those of the test split, which is
    logged.

    Returns:
        The folder.

    Raises:
        ConfigError: The folder exists, or would be too large.
        StorageError: The storage root has no evaluated emulators of the system, or their data are gone.
    """
    target = Path(config.output).absolute()
    require_new(target, overwrite=False)
    root = resolve_storage(config.storage, create=False)
    if config.system not in {manifest["system"] for _, manifest in read_manifests(root, "emulators")}:
        system, datasets = find_system(config.system, Datasets(well_folder(root, config.well)))
        config = config.replace(system=system.name, well=str(datasets.root))
    best = _best(root, config.system, log)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".models-") as name:
        folder = Path(name) / target.name
        for kind, (emulator, evaluation) in best.items():
            _export(config, root, folder, kind, emulator, evaluation)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        require(
            total <= MAX_BYTES,
            f"the models take {total / 1e6:.1f} MB, and {MAX_BYTES / 1e6:g} are the most; "
            "train smaller ones, or keep fewer --trajectories or --states",
        )
        folder.replace(target)
    log(f"{target}: {', '.join(best)}, {total / 1e6:.1f} MB")
    return target


def _best(root: AnyPath, system: str, log: Log) -> dict[str, tuple[AnyPath, AnyPath]]:
    """The best emulator of each kind: its folder, and that of the evaluation."""
    emulators = {
        manifest["fingerprint"]: (folder, manifest)
        for folder, manifest in read_manifests(root, "emulators")
        if manifest["system"] == system
    }
    kinds = {kind.config.__name__: name for name, kind in KINDS.items()}
    found = [
        (kinds[model["model"]["type"]], folder, evaluation, manifest)
        for evaluation, manifest in read_manifests(root, "evaluations")
        for folder, model in [emulators.get(manifest["inputs"].get("emulator"), (None, {}))]
        if folder is not None and not _configuration(manifest).guided
    ]
    splits = {_configuration(manifest).split for *_, manifest in found}
    if not found:
        raise StorageError(f"{root} has no evaluated emulators of {system}; run a sweep of it first")
    split = "valid" if "valid" in splits else "test"
    log(f"the best of each kind by their CRPS on the {split} split")
    best: dict[str, tuple[AnyPath, AnyPath]] = {}
    for kind, folder, evaluation, manifest in sorted(found, key=lambda each: _mean(each[-1])):
        if _configuration(manifest).split == split:
            best.setdefault(kind, (folder, evaluation))
    return best


def _configuration(evaluation: dict[str, Any]) -> EvaluationConfig:
    return EvaluationConfig.from_json(evaluation["config"])


def _scores(evaluation: dict[str, Any], metric: str) -> dict[str, float | None]:
    """A metric against the truth by range of lead times; None where a rollout did not stay finite."""
    prefix = f"{_configuration(evaluation).split}/{metric}/"
    return {name: value for name, value in evaluation["metrics"].items() if name.startswith(prefix)}


def _mean(evaluation: dict[str, Any]) -> float:
    """The mean over the ranges of lead times of what emulators are chosen by."""
    split = _configuration(evaluation).split
    return _mean_crps({name: v for name, v in evaluation["metrics"].items() if name.startswith(f"{split}/")})


def _mean_crps(scores: Mapping[str, float | None]) -> float:
    """The mean over ranges of lead times; infinite where a rollout did not stay finite, or there is none."""
    found = [[v for name, v in scores.items() if name.split("/")[1] == metric] for metric in EVALUATED]
    chosen = next((values for values in found if values), [math.inf])
    return statistics.fmean(math.inf if value is None else value for value in chosen)


def _export(
    config: ExportConfig,
    root: AnyPath,
    folder: Path,
    kind: str,
    emulator: AnyPath,
    evaluation: AnyPath,
) -> None:
    """Keep one emulator, what it needs, and its scores."""
    manifest, scored = read_manifest(emulator), read_manifest(evaluation)
    chosen = _configuration(scored)
    loaded, kept = load_emulator(emulator, weights=chosen.weights), folder / "emulators" / kind
    if manifest["autoencoder"]:
        source = root / "autoencoders" / manifest["autoencoder"]
        _keep(source, folder / "autoencoders" / source.name, load_autoencoder(source))
    if computed := manifest["inputs"].get("statistics"):
        source, copy = (statistics_folder(each, config.system, computed) for each in (root, folder))
        shutil.copytree(str(source), str(copy), dirs_exist_ok=True)
    _keep(emulator, kept, loaded.model)
    initial = folder / INITIAL
    if not initial.exists():
        _write_initial(config, root, initial, evaluation, manifest["config"]["stride"])
    before = score_kept(emulator, initial, chosen.sampler, chosen.weights)
    after = score_kept(kept, initial, chosen.sampler)
    require(
        abs(after - before) <= MAX_CHANGE * before,
        f"{kind} has a VRMSE of {after:.4g} with weights of float16 and of {before:.4g} without; "
        f"{MAX_CHANGE:.0%} is the most that it may change: train with another "
        "--emulator-training.seed or other --seeds",
    )
    scores = {
        **{"vrmse": after, "vrmse_float32": before, "members": MEMBERS, "seed": SEED},
        "sampler": chosen.sampler and {"type": "SamplerConfig", **chosen.sampler.to_json()},
        "evaluation": {k: v for name in ("vrmse", *EVALUATED) for k, v in _scores(scored, name).items()},
    }
    _write_manifest(kept, read_manifest(kept) | {"scores": scores})


def _keep(stage: AnyPath, folder: Path, model: nn.Module) -> None:
    """Write the weights of a stage's model as float16, and its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS, model.half())
    manifest = read_manifest(stage) | {"files": result_sizes(folder), "dtype": "float16"}
    _write_manifest(folder, manifest | {"weights": {"raw": WEIGHTS}})


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with atomic_path(folder / "manifest.json") as tmp_path:
        tmp_path.write_text(dumps(manifest, indent=1) + "\n")


def _write_initial(config: ExportConfig, root: AnyPath, path: Path, evaluation: AnyPath, stride: int) -> None:
    """Write the first states of evaluated trajectories of typical errors, as many as one file has."""
    errors = _errors(evaluation)
    name = next(iter(errors)).rpartition("#")[0]
    own = {
        int(each.rpartition("#")[2]): error for each, error in errors.items() if each.startswith(f"{name}#")
    }
    middle = statistics.median(own.values())
    rows = sorted(sorted(own, key=lambda row: (abs(own[row] - middle), row))[: config.trajectories])
    dataset, split, file = name.split("/")
    source = to_path(well_folder(root, config.well)) / dataset / "data" / split / file
    if not source.exists():
        raise StorageError(
            f"{source}, which has the trajectories that emulators were scored on, does not exist; name the "
            "dataset's folder as --system, or with --well the folder that holds it"
        )
    write_excerpt(to_location(str(source)), path, rows, 1 + stride * config.states)


def _errors(evaluation: AnyPath) -> dict[str, float]:
    """The CRPS of every trajectory, in the mean over fields and lead times."""
    rows = read_table(evaluation / "metrics.parquet")
    kept = rows.filter((pc.field("target") == "truth") & (pc.field("metric") == EVALUATED[-1]))
    frame = kept.select(["trajectory", "value"]).to_pandas()
    means: dict[str, float] = frame.groupby(frame["trajectory"].astype(str))["value"].mean().to_dict()
    return means
