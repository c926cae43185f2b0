"""The identity of a latent cache, and the encoder that turns blocks of states into blocks of latents.

    a block of T states -> augment -> standardise -> autoencoder -> T latents, for each variant

Variant 0 of a trajectory is the trajectory itself, and the others are different symmetries of it, drawn from
(seed, trajectory, variant). A block has a fixed number of states, so that the numbers do not depend on how
many encoders there are.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lola.core.errors import DataError
from lola.data.augment import draw_variant
from lola.data.casting import cast_checked
from lola.data.latent_shards import tensor_column
from lola.data.transforms import Standardisation
from lola.data.well.simulation_files import SimulationFile
from lola.data.well.splits import WellSplit
from lola.emulation.cache_config import CacheConfig
from lola.emulation.emulator import load_autoencoder
from lola.nn.compiling import compiled
from lola.storage.remote import AnyPath
from lola.training.precision import precision


def variants_of(shard: SimulationFile, config: CacheConfig) -> int:
    """Only training trajectories are augmented."""
    return config.variants if "/train/" in shard.split.trajectories[shard.members[0]].id else 1


@dataclasses.dataclass(frozen=True, eq=False)
class EncoderInput:
    """One block, ready to be encoded: where it is from, and each variant's `(T, C, *grid)` and parameters."""

    entry: dict[str, Any]
    variants: list[tuple[Tensor, np.ndarray]]


class BlockEncoder:
    """The autoencoder, and what prepares blocks of states for it; also an actor of Ray Data.

    Arguments:
        model: The folder of the finished autoencoder.
        shards: The shards by number.
    """

    def __init__(self, model: AnyPath, shards: Mapping[int, SimulationFile], config: CacheConfig) -> None:
        self.device = torch.device("cuda" if config.gpus else "cpu")
        encode = load_autoencoder(model).to(self.device).eval().encode
        self.encoder = compiled(encode) if config.compile else encode
        self.shards, self.config = shards, config

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode every variant of one block, as a Ray Data actor does."""
        return self.encode(self.prepare(batch))

    @torch.inference_mode()
    def prepare(self, batch: pa.Table) -> EncoderInput:
        """Standardised states and parameters of every variant of one block."""
        (entry,) = batch.drop_columns(["states"]).to_pylist()
        split = self.shards[entry["shard"]].split
        states = torch.from_numpy(tensors(batch, "states")[0].copy()).to(self.device)  # (T, C, *grid)
        variants = []
        for variant in range(variants_of(self.shards[entry["shard"]], self.config)):
            x, parameters = self._variant(states, split, entry["trajectory"], variant)
            try:
                x = x if entry["fault"] else Standardisation(split.system).forward(x, axis=1)
            except DataError as error:
                source = split.trajectories[entry["trajectory"]]
                remedy = f"{source.remedy}, or choose another transform"
                entry["fault"] = f"{source.id} ({source.file}): {error}; {remedy}"
            variants.append((x, parameters.numpy()))
        return EncoderInput(entry, variants)

    @torch.inference_mode()
    def encode(self, prepared: EncoderInput) -> pa.Table:
        """Latents of every variant of one block; those of a faulty block mean nothing."""
        latents = []
        for x, _ in prepared.variants:
            with precision(self.config.precision, self.device):
                z = self.encoder(x)
            latents.append(self._cast(z.float().cpu().numpy(), prepared.entry))
        rows = len(latents)
        entry = {name: value for name, value in prepared.entry.items() if name != "fault"}
        return pa.table(
            {name: pa.array([value] * rows, pa.int32()) for name, value in entry.items()}
            | {
                "variant": pa.array(range(rows), pa.int32()),
                "parameters": tensor_column([parameters for _, parameters in prepared.variants]),
                "latents": tensor_column(latents),
                "fault": pa.array([prepared.entry["fault"]] * rows),
            }
        )

    def _cast(self, latents: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
        """Latents in the type that they are stored in; a value that does not survive is the block's fault."""
        try:
            return cast_checked(latents, self.config.dtype, "a latent")
        except DataError as error:
            source = self.shards[entry["shard"]].split.trajectories[entry["trajectory"]]
            remedy = (
                "the autoencoder has diverged, or a value of the file is far out of range"
                if not np.isfinite(latents).all()
                else "store the cache as float32 (--dtype, --cache.dtype in a sweep)"
            )
            entry["fault"] = entry["fault"] or f"{source.id} ({source.file}): {error}; {remedy}"
            return np.zeros(latents.shape, self.config.dtype)

    def _variant(self, states: Tensor, split: WellSplit, index: int, variant: int) -> tuple[Tensor, Tensor]:
        """States and parameters of a variant, the same augmentation at all times."""
        parameters = split.parameters(index)
        if not variant:
            return states, parameters
        source = split.trajectories[index]
        augmentation = draw_variant(
            split.system,
            source.boundary,
            split.grid,
            (self.config.seed, source.id),
            variant,
            self.config.symmetries,
            split.coordinates,
        )
        return augmentation.apply(states.movedim(1, 0)).movedim(1, 0), augmentation.parameters(parameters)


def tensors(table: pa.Table, column: str) -> np.ndarray:
    """A column of Arrow tensors as one array."""
    return table.column(column).combine_chunks().to_numpy_ndarray()
