"""What `import lola` offers, in a few lines each on top of the packages that do the work.

States are float32 in physical units, `(C, L, *grid)`: fields, then times. `stride` counts simulation steps.
Models are named as on the command line: the folder, name or fingerprint of a stage in the storage root,
`runs:/RUN_ID`, a registered model of MLflow, or the folder of a published run (`config.yaml`, `state.pth`).
Modules that import MLflow or Ray are imported where they are needed.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lola.core.config import require
from lola.data.latents import LatentSplit
from lola.data.well.dataset_writer import write_well as write_well  # part of this interface
from lola.data.well.datasets import Datasets
from lola.data.well.find import find_system
from lola.data.well.splits import WellSplit
from lola.emulation import emulator as emulators
from lola.emulation.emulator import Emulator
from lola.emulation.ensemble_config import check_device
from lola.emulation.inference_config import InferenceConfig, Weights
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.scores.ensemble import EPS, score_ensemble
from lola.models.autoencoder import Autoencoder
from lola.storage.remote import AnyPath, to_path
from lola.storage.stages import resolve_storage, to_location


def open_well(
    folder: str | Path,
    dataset: str,
    split: str = "train",
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> WellSplit:
    """Open a split of a dataset in The Well's format; states are read when they are asked for.

    Arguments:
        folder: The folder of datasets, `<folder>/<dataset>/data/<split>/*.hdf5`: a path, or a URL that fsspec
            knows, such as `hf://datasets/polymathic-ai`.
        dataset: A physical system, such as `euler`, which has transforms and perhaps statistics; or the name
            of any dataset of the folder, whose fields are taken as its `system.yaml` or its files describe
            them; or the path of a description.
        split: `train`, `valid` or `test`.
        include, exclude: Parts of the names of files that are used alone, or not; trajectories FILE#NUMBER
            that are not.

    Raises:
        DataError: There is no such file, or one is corrupt or unlike the others.
        StorageError: The folder cannot be reached.

    Example:
        >>> split = lola.open_well("datasets", "euler", "test")
        >>> split.read(0, start=0, stop=21, stride=4).shape  # C, L, *grid
        torch.Size([5, 6, 16, 16])
        >>> split.parameters(0).shape  # constants of the simulation, codes of the boundaries
        torch.Size([5])
    """
    datasets = Datasets(to_location(folder), tuple(include), tuple(exclude))
    system, datasets = find_system(dataset, datasets)
    datasets.check(system)
    return datasets.open(system, split)


def open_latents(cache: str | Path, split: str = "train", *, storage: str | None = None) -> LatentSplit:
    """Open a split of a finished latent cache: encoded trajectories, of which some may be augmented.

    Arguments:
        cache: The cache's folder or URL, or its name in the storage root.
        split: `train`, `valid` or `test`.
        storage: The storage root; else `LOLA_STORAGE`, else `~/lola-storage`.

    Raises:
        DataError: The cache has no such split, or a shard is missing or corrupt.
        StorageError: The cache does not exist, is not finished, or cannot be reached.

    Example:
        >>> latents = lola.open_latents("euler-latents-f8c32-89abcdef", "test")
        >>> len(latents)  # trajectories, times variants
        4
        >>> latents.read(0, start=0, stop=21, stride=4).shape  # C, L, *grid
        torch.Size([16, 6, 2, 2])
    """
    folder = to_path(cache)
    if not (folder / "manifest.json").exists() and len(Path(cache).parts) == 1:
        folder = resolve_storage(storage) / "latents" / str(cache)
    return LatentSplit(folder, split)


def load_autoencoder(
    model: str | Path, *, storage: str | None = None, weights: Weights = "raw", device: str = "cpu"
) -> Autoencoder:
    """Load an autoencoder, in evaluation mode.

    Arguments:
        model: Its name: see this module.
        storage: The storage root; else `LOLA_STORAGE`, else `~/lola-storage`.
        weights: `raw`, or their moving average `ema`.
        device: `cpu`, `cuda`, `cuda:1`.

    Returns:
        A module whose `encode` maps standardised states `(B, C, *grid)` to latents `(B, C', *grid')`, and
        whose `decode` maps them back.

    Raises:
        ConfigError: The device does not exist.
        DataError: It is another model, or its weights are corrupt.
        StorageError, TrackingError: It was not found.

    Example:
        >>> autoencoder = lola.load_autoencoder("euler-autoencoder-f8c32-0123abcd")
        >>> autoencoder.encode(torch.zeros(1, 5, 16, 16)).shape
        torch.Size([1, 16, 2, 2])
    """
    check_device(device)
    if _is_published(model):
        from lola.reference import load_autoencoder

        return load_autoencoder(Path(model)).to(device)
    from lola.storage.registry import find_root, find_stage

    folder = find_stage(find_root(storage, str(model)), str(model), "autoencoders")
    return emulators.load_autoencoder(folder, weights).to(device)


def load_emulator(
    model: str | Path,
    *,
    storage: str | None = None,
    weights: Weights = "raw",
    sampler: SamplerConfig | None = None,
    inference: InferenceConfig | None = None,
    device: str = "cpu",
) -> Emulator:
    """Load an emulator, with its autoencoder and the physical system that it was trained on.

    Arguments:
        model: Its name: see this module.
        storage: The storage root; else `LOLA_STORAGE`, else `~/lola-storage`.
        weights: `raw`, or their moving average `ema`; the autoencoder's are those it was trained with.
        sampler: How a diffusion model draws; else with 16 evaluations of the network as published, of a
            few-step one as it was trained.
        inference: In what precision, in what chunks and whether compiled the networks run.
        device: `cpu`, `cuda`, `cuda:1`.

    Raises:
        ConfigError: The device does not exist.
        DataError: It is another model, or weights are corrupt.
        StorageError, TrackingError: It, or its autoencoder, was not found.

    Example:
        >>> emulator = lola.load_emulator("euler-diffusion-f8c32-0123abcd")
        >>> emulator.stochastic, emulator.model.window
        (True, 5)
    """
    check_device(device)
    if _is_published(model):
        from lola.reference import load_emulator

        loaded = load_emulator(Path(model), sampler)
    else:
        from lola.storage.registry import find_emulator, find_root

        folder = find_emulator(find_root(storage, str(model)), str(model))
        loaded = emulators.load_emulator(folder, sampler, weights)
    return dataclasses.replace(loaded.to(device), inference=inference or InferenceConfig())


def rollout(
    emulator: Emulator,
    context: Tensor,
    parameters: Tensor,
    states: int,
    *,
    members: int = 1,
    seed: int = 0,
    overlap: int = 1,
) -> Tensor:
    """Draw the states that follow a context. A member is a function of `seed` and its number alone.

    Arguments:
        emulator: The emulator.
        context: The known states, its training's stride apart, physical, `(C, K, *grid)`, 1 <= K < window.
        parameters: Those of the simulation, `(P,)`, as `WellSplit.parameters` gives them.
        states: How many states to draw.
        members: Size of the ensemble; those of a neural solver are equal.
        seed: Seeds the members.
        overlap: States that a window shares with the one before.

    Returns:
        Physical states on the CPU, `(members, C, states, *grid)`. `Emulator.rollout` gives windows of many
        trajectories as they are drawn, and takes observations.

    Raises:
        ConfigError: The context, the parameters or the overlap do not fit the emulator, or it does not know
            its physical system.

    Example:
        >>> split = lola.open_well("datasets", "euler", "test")
        >>> truth = split.read(0, start=0, stop=21, stride=4)
        >>> emulator = lola.load_emulator("euler-diffusion-f8c32-0123abcd")
        >>> lola.rollout(emulator, truth[:, :1], split.parameters(0), states=5, members=3).shape
        torch.Size([3, 5, 5, 16, 16])
    """
    standardisation = emulator.standardisation
    assert emulator.system is not None
    channels, axes = emulator.system.channels, emulator.system.dimensions
    fits = context.ndim == 2 + axes and len(context) == len(channels) and parameters.ndim == 1
    require(
        fits,
        f"context must have shape ({len(channels)}, K, *grid) with {axes} grid axes, fields in the order "
        f"{', '.join(channels)}, and parameters (P,); they have {tuple(context.shape)} and "
        f"{tuple(parameters.shape)}",
    )
    require(states > 0 and members > 0, f"states and members must be at least 1, not {states} and {members}")
    device = emulator.device
    with torch.no_grad():
        z = emulator.encode(standardisation.forward(context[None].to(device)))
        windows = emulator.rollout(
            z.expand(members, *z.shape[1:]),
            parameters.to(z).expand(members, -1),
            states,
            [(seed, member) for member in range(members)],
            overlap=overlap,
        )
        drawn = [standardisation.inverse(emulator.decode(window)).cpu() for window in windows]
        return torch.cat(drawn, dim=2)


def score(truth: Tensor, members: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
    """Score an ensemble against the truth, field by field and time by time, with all cells counting the same.

    Arguments:
        truth: The true states, in any unit, `(C, L, *grid)`.
        members: The ensemble, in the same, `(M, C, L, *grid)`; for one prediction, `M` is 1.
        valid: True in the cells that count, `(*grid)`; all do by default.

    Returns:
        Scores `(C, L)` by name. Without unit: `vrmse` of the ensemble's mean (1 is the error of the best
        constant field), `vrmse_member` of single members, `nrmse`, and `spectrum_rmse_low`, `_mid`, `_high`
        of the power in three bands. In the unit of the field: `skill`, the root mean squared error of the
        mean, `crps` and, of two members or more, `spread`. `lola/evaluation/scores` has the definitions.

    Raises:
        ConfigError: The shapes do not fit each other.

    Example:
        >>> truth, members = torch.rand(5, 3, 16, 16), torch.rand(8, 5, 3, 16, 16)
        >>> scores = lola.score(truth, members)
        >>> scores["vrmse"].shape  # C, L
        torch.Size([5, 3])
        >>> ratio = scores["spread"].square().mean().sqrt() / scores["skill"].square().mean().sqrt()
    """
    shapes = f"{tuple(truth.shape)} and {tuple(members.shape)}"
    fits = truth.ndim > 2 and members.shape[1:] == truth.shape and len(members) > 0
    require(fits, f"truth and members must have shapes (C, L, *grid) and (M, C, L, *grid), not {shapes}")
    require(
        valid is None or (valid.dtype == torch.bool and valid.shape == truth.shape[2:]),
        f"valid must be bool with shape {tuple(truth.shape[2:])}",
    )
    inside = truth.flatten(2) if valid is None else truth[..., valid]
    variance = inside.flatten(1).var(1, correction=0)[:, None].nan_to_num(posinf=0)
    eps = EPS * variance.where(variance > 0, 1.0)  # of the unit of each field
    scores, _ = score_ensemble({"truth": truth}, members, spatial=truth.ndim - 2, valid=valid, eps=eps)
    return scores["truth"].metrics


def write_ensemble(emulator: str | Path, initial: str | Path, output: str | Path, **options: Any) -> AnyPath:
    """Draw ensembles from the states of a file and write them in The Well's format, in physical units.

    Sample `i M + m` of the output is member `m` of the `i`-th trajectory, the known states first. States are
    written as they are drawn; the file takes its name when it is complete.

    Arguments:
        emulator: The name of a stage, an MLflow run or a registered model: see this module.
        initial: The Well file of the initial states, a path or a URL.
        output: The file to write, a path or a URL.
        **options: Fields of `lola.emulation.ensembles.EnsembleConfig`, such as `trajectories`, `start`,
            `members`, `states`, `parameters`, `sampler`, `device` and `storage`.

    Returns:
        The absolute path, or the URL, of the output.

    Raises:
        LolaError: Anything is missing, corrupt or impossible, or the storage is full.

    Example:
        >>> name = "euler_multi_quadrants_openBC"
        >>> initial = f"datasets/{name}/data/test/{name}_gamma_1.4.hdf5"
        >>> lola.write_ensemble(
        ...     "euler-diffusion-f8c32-0123abcd", initial, "ensemble.hdf5", members=2, states=3
        ... ).name
        'ensemble.hdf5'
        >>> h5py.File("ensemble.hdf5")["t0_fields/density"].shape  # samples, states, *grid
        (2, 4, 16, 16)
    """
    from lola.emulation import ensembles

    config = ensembles.EnsembleConfig(emulator=str(emulator), initial=str(initial), **options)
    return ensembles.write_ensemble(config, output)


def run_sweep(preset: str = "mini", system: str = "euler", **options: Any) -> AnyPath:
    """Run a sweep to its end, from wherever an earlier call left it.

    Arguments:
        preset: `mini`, `smoke`, `study`, `ablations` or `paper`: `lola/workflows/presets.py` has them.
        system: The physical system: a name, a dataset of `well`, the folder of a dataset or a description
            file.
        **options: Fields of `lola.workflows.sweep.SweepConfig`, such as `latent_channels`, `seeds`, `arms`,
            `solver_steps`, `well` and `storage`.

    Returns:
        The report, an HTML page.

    Raises:
        LolaError: Options, data or storage are at fault, or trials failed.

    Example:
        >>> lola.run_sweep("smoke").name  # 2 to 4 minutes on two cores, once
        'report.html'
    """
    from lola.workflows import presets, run

    require(preset in presets.SWEEPS, f"preset must be one of {', '.join(presets.SWEEPS)}, not {preset!r}")
    places = {name: options[name] for name in ("well", "storage", "include", "exclude") if name in options}
    return run.run_sweep(presets.SWEEPS[preset](system, **places).replace(**options))


def _is_published(model: str | Path) -> bool:
    return "://" not in str(model) and (Path(model) / "config.yaml").exists()
