"""Encoding a dataset into a latent cache: Ray Data reads, a pool of actors encodes, the driver commits.

    WellDatasource --blocks of T states--> Encoder actors --blocks of T latents--> shards, in order

A block has a fixed number of states of one trajectory, so that the numbers do not depend on how many actors
there are. Latents are small, and one writer commits them, shard by shard; a shard that exists is whole and
is not encoded again.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import ray.data
import torch
from ray.data import ActorPoolStrategy

from lola.config import Config, how, require
from lola.data.augment import Symmetries
from lola.data.datasets import Datasets
from lola.data.latents import (
    LatentTrajectory,
    describe_shards,
    shapes,
    shard_path,
    tensor_column,
    write_shard,
)
from lola.data.systems import get_system
from lola.data.transforms import Standardisation
from lola.data.well import WellSplit
from lola.distributed.cluster import quiet_data
from lola.distributed.datasource import Shard, WellDatasource, shards_of
from lola.emulation import load_autoencoder
from lola.seeding import numpy_generator
from lola.storage import Stage
from lola.training.loop import Precision, precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig(Config):
    """What a latent cache holds.

    Arguments:
        dtype: The type of the stored latents.
        precision: The type of the autoencoder's arithmetic.
        variants: Versions of each training trajectory: the simulated one, then augmented ones.
        seed: Seeds the augmentations.
        symmetries: What augmented versions are drawn from; `published` turns gravity over as they did.
        block: States encoded at once.
        actors: Largest number of encoders.
        gpus: GPUs per encoder.
    """

    dtype: Literal["float32", "float16"] = "float32"
    precision: Precision = "float32"
    variants: int = 1
    seed: int = 0
    symmetries: Symmetries = "plain"
    block: int = 25
    actors: int = how(1)
    gpus: float = how(0.0)

    def validate(self) -> None:
        require(self.variants > 0, f"a cache needs at least one variant, not {self.variants}")
        require(self.block > 0, f"a block needs at least one state, not {self.block}")


def encode(stage: Stage, autoencoder: Stage, datasets: Datasets, config: CacheConfig) -> None:
    """Encode every split of a system's datasets and commit the cache; finished shards are kept.

    Arguments:
        stage: The cache.
        autoencoder: The finished autoencoder that encodes.
        datasets: The Well datasets.
    """
    quiet_data()
    splits = {name: datasets.open(get_system(stage.system), name) for name in ("train", "valid", "test")}
    files = [(name, number, shard) for name in splits for number, shard in enumerate(shards_of(splits[name]))]
    paths = [shard_path(stage.folder, name, number) for name, number, _ in files]
    missing = {i: shard for i, (_, _, shard) in enumerate(files) if not paths[i].exists()}
    if missing:
        _encode_shards(missing, paths, autoencoder.folder, config)
    described = {
        name: describe_shards(
            [path for path, (split, _, _) in zip(paths, files, strict=True) if split == name]
        )
        for name in splits
    }
    shape, parameters = shapes(paths[0])
    stage.commit(shape=list(shape), parameters=parameters, splits=described)


def _encode_shards(missing: dict[int, Shard], paths: list[Path], model: Path, config: CacheConfig) -> None:
    states = min(config.block, min(shard.split.steps for shard in missing.values()))
    # A block of states is a few megabytes; small requests let reading and encoding share few cores.
    blocks = ray.data.read_datasource(
        WellDatasource(missing, states), ray_remote_args={"num_cpus": 0.25}
    ).map_batches(
        Encoder,
        fn_constructor_args=(model, missing, config),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=config.actors),
        num_cpus=0.5,
        num_gpus=config.gpus or None,
    )
    blocks.context.execution_options.preserve_order = True
    arrived: dict[int, list[LatentTrajectory]] = {}
    for number, trajectory in _assemble(blocks, missing):
        members = arrived.setdefault(number, [])
        members.append(trajectory)
        if len(members) == len(missing[number].members) * variants_of(missing[number], config):
            members.sort(key=lambda each: (each.variant, each.id))
            write_shard(paths[number], arrived.pop(number))


def variants_of(shard: Shard, config: CacheConfig) -> int:
    """Only training trajectories are augmented."""
    return config.variants if "/train/" in shard.split.trajectories[shard.members[0]].id else 1


def _assemble(blocks: ray.data.Dataset, shards: dict[int, Shard]) -> Iterator[tuple[int, LatentTrajectory]]:
    """Join the blocks of each trajectory and variant, in whatever order they arrive."""
    parts: dict[tuple[int, int, int], dict[int, np.ndarray]] = {}
    for batch in blocks.iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(batch, pa.Table)
        latents = _numpy(batch, "latents")
        parameters = _numpy(batch, "parameters")
        for row, entry in enumerate(batch.drop_columns(["latents", "parameters"]).to_pylist()):
            number, index, variant = entry["shard"], entry["trajectory"], entry["variant"]
            split = shards[number].split
            known = parts.setdefault((number, index, variant), {})
            known[entry["start"]] = latents[row, : entry["count"]].copy()
            if sum(len(part) for part in known.values()) == split.steps:
                whole = np.concatenate([known[start] for start in sorted(known)])
                identity = split.trajectories[index].id
                yield number, LatentTrajectory(identity, variant, parameters[row].copy(), whole)
                del parts[number, index, variant]


def _numpy(table: pa.Table, column: str) -> np.ndarray:
    return table.column(column).combine_chunks().to_numpy_ndarray()


class Encoder:
    """An actor that holds the autoencoder and encodes blocks of states."""

    def __init__(self, model: Path, shards: dict[int, Shard], config: CacheConfig) -> None:
        self.device = torch.device("cuda" if config.gpus else "cpu")
        self.autoencoder = load_autoencoder(model).to(self.device).eval()
        self.shards, self.config = shards, config

    @torch.inference_mode()
    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode every variant of one block."""
        (entry,) = batch.drop_columns(["states"]).to_pylist()
        states = torch.from_numpy(_numpy(batch, "states")[0].copy()).movedim(0, 1)  # (C, T, *grid)
        rows = []
        shard = self.shards[entry["shard"]]
        for variant in range(variants_of(shard, self.config)):
            x, parameters = self._variant(states, shard.split, entry["trajectory"], variant)
            with precision(self.config.precision, self.device):
                z = self.autoencoder.encode(x.movedim(1, 0).to(self.device))
            rows.append((variant, parameters.numpy(), z.float().cpu().numpy().astype(self.config.dtype)))
        numbers, parameters_of, latents = zip(*rows, strict=True)
        return pa.table(
            {name: pa.array([value] * len(rows), pa.int32()) for name, value in entry.items()}
            | {
                "variant": pa.array(numbers, pa.int32()),
                "parameters": tensor_column(parameters_of),
                "latents": tensor_column(latents),
            }
        )

    def _variant(
        self, states: torch.Tensor, split: WellSplit, index: int, variant: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised states and parameters of a variant, the same augmentation at all times."""
        parameters = split.parameters(index)
        if variant:
            generator = numpy_generator(self.config.seed, split.trajectories[index].id, variant)
            augmentation = split.symmetry(index, self.config.symmetries, generator)
            states, parameters = augmentation.apply(states), augmentation.parameters(parameters)
        return Standardisation(split.system).forward(states), parameters
