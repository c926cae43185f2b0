"""Encoding a dataset into a latent cache: Ray Data reads, a pool of actors encodes, the driver commits.

    WellDatasource --blocks of T states--> Encoder actors --blocks of T latents--> shards, in order

A block has a fixed number of states of one trajectory, so that the numbers do not depend on how many actors
there are. Latents are small, and one writer commits them, shard by shard; a shard that exists is whole and
is not encoded again.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray.data
import torch
from ray.data import ActorPoolStrategy

from lola.config import Config, how, require
from lola.data.augment import draw
from lola.data.latents import LatentTrajectory, describe_shards, shard_path, tensor_column, write_shard
from lola.data.systems import get_system
from lola.data.transforms import Standardisation
from lola.data.well import WellSplit, open_split
from lola.distributed.cluster import quiet_data
from lola.distributed.datasource import WellDatasource, by_file
from lola.emulation import load_autoencoder
from lola.seeding import numpy_generator
from lola.storage import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig(Config):
    """What a latent cache holds.

    Arguments:
        dtype: The type of the stored latents.
        variants: Versions of each training trajectory: the simulated one, then augmented ones.
        seed: Seeds the augmentations.
        block: States encoded at once.
        actors: Largest number of encoders.
        gpus: GPUs per encoder.
    """

    dtype: Literal["float32", "float16"] = "float32"
    variants: int = 1
    seed: int = 0
    block: int = 25
    actors: int = how(1)
    gpus: float = how(0.0)

    def validate(self) -> None:
        require(self.variants > 0, f"a cache needs at least one variant, not {self.variants}")
        require(self.block > 0, f"a block needs at least one state, not {self.block}")


SPLITS = ("train", "valid", "test")


def encode(stage: Stage, autoencoder: Stage, root: Path, config: CacheConfig) -> None:
    """Encode every split of a system's datasets and commit the cache; finished shards are kept.

    Arguments:
        stage: The cache.
        autoencoder: The finished autoencoder that encodes.
        root: The folder of Well datasets.
    """
    quiet_data()
    described: dict[str, Any] = {}
    for name in SPLITS:
        split = open_split(root, get_system(stage.system), name)
        variants = config.variants if name == "train" else 1
        paths = [shard_path(stage.folder, name, number) for number in range(len(by_file(split)))]
        missing = [number for number, path in enumerate(paths) if not path.exists()]
        if missing:
            _encode_split(split, paths, missing, autoencoder.folder, config, variants)
        described[name] = describe_shards(paths)
    latents = load_autoencoder(autoencoder.folder)
    grid = tuple(size // latents.config.downsampling for size in split.grid)
    stage.commit(
        shape=[split.steps, latents.config.latent_channels, *grid],
        parameters=split.parameter_count,
        splits=described,
    )


def _encode_split(
    split: WellSplit, paths: list[Path], missing: list[int], model: Path, config: CacheConfig, variants: int
) -> None:
    skip = set(range(len(paths))) - set(missing)
    states = min(config.block, split.steps)
    # A block of states is a few megabytes; small requests let reading and encoding share few cores.
    blocks = ray.data.read_datasource(
        WellDatasource(split, states, sorted(skip)), ray_remote_args={"num_cpus": 0.25}
    ).map_batches(
        Encoder,
        fn_constructor_args=(model, split, config, variants),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=config.actors),
        num_cpus=0.5,
        num_gpus=config.gpus or None,
    )
    blocks.context.execution_options.preserve_order = True
    files = by_file(split)
    arrived: dict[int, list[LatentTrajectory]] = {}
    for trajectory, shard in _assemble(blocks, split):
        members = arrived.setdefault(shard, [])
        members.append(trajectory)
        if len(members) == len(files[shard]) * variants:
            members.sort(key=lambda each: (each.variant, each.id))
            write_shard(paths[shard], arrived.pop(shard))


def _assemble(blocks: ray.data.Dataset, split: WellSplit) -> Iterator[tuple[LatentTrajectory, int]]:
    """Join the blocks of each trajectory and variant, in whatever order they arrive."""
    parts: dict[tuple[int, int], dict[int, np.ndarray]] = {}
    for batch in blocks.iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(batch, pa.Table)
        latents = _numpy(batch, "latents")
        parameters = _numpy(batch, "parameters")
        for row, entry in enumerate(batch.drop_columns(["latents", "parameters"]).to_pylist()):
            key = (entry["trajectory"], entry["variant"])
            known = parts.setdefault(key, {})
            known[entry["start"]] = latents[row, : entry["count"]].copy()
            if sum(len(part) for part in known.values()) == split.steps:
                whole = np.concatenate([known[start] for start in sorted(known)])
                identity = split.trajectories[entry["trajectory"]].id
                yield (
                    LatentTrajectory(identity, entry["variant"], parameters[row].copy(), whole),
                    entry["shard"],
                )
                del parts[key]


def _numpy(table: pa.Table, column: str) -> np.ndarray:
    return table.column(column).combine_chunks().to_numpy_ndarray()


class Encoder:
    """An actor that holds the autoencoder and encodes blocks of states."""

    def __init__(self, model: Path, split: WellSplit, config: CacheConfig, variants: int) -> None:
        self.device = torch.device("cuda" if config.gpus else "cpu")
        self.autoencoder = load_autoencoder(model).to(self.device).eval()
        self.split, self.config, self.variants = split, config, variants
        self.standardise = Standardisation(split.system)

    @torch.inference_mode()
    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode every variant of one block."""
        (entry,) = batch.drop_columns(["states"]).to_pylist()
        states = torch.from_numpy(_numpy(batch, "states")[0].copy()).movedim(0, 1)  # (C, T, *grid)
        rows = []
        for variant in range(self.variants):
            x, parameters = self._variant(states, entry["trajectory"], variant)
            z = self.autoencoder.encode(x.movedim(1, 0).to(self.device)).cpu().numpy()
            rows.append((variant, parameters.numpy(), z.astype(self.config.dtype)))
        numbers, parameters_of, latents = zip(*rows, strict=True)
        return pa.table(
            {name: pa.array([value] * len(rows), pa.int32()) for name, value in entry.items()}
            | {
                "variant": pa.array(numbers, pa.int32()),
                "parameters": tensor_column(parameters_of),
                "latents": tensor_column(latents),
            }
        )

    def _variant(self, states: torch.Tensor, index: int, variant: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised states and parameters of a variant, the same augmentation at all times."""
        parameters = self.split.parameters(index)
        if variant:
            trajectory = self.split.trajectories[index]
            generator = numpy_generator(self.config.seed, trajectory.id, variant)
            augmentation = draw(self.split.system, trajectory.boundary, self.split.grid, generator)
            states, parameters = augmentation.apply(states), augmentation.parameters(parameters)
        return self.standardise.forward(states), parameters
