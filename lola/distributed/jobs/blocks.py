"""The stream of encoded blocks: shards, trajectories, blocks and variants in order, whatever process encodes.

What cannot be read, or is not physical, does not end the stream: its block carries the fault.

One encoder without GPUs is the calling process: a thread reads, augments and standardises the next block
while the autoencoder works on this one. On two cores that encodes 6060 states of 64 x 64 cells at 0.95
(float32) and 0.89 (bfloat16, 1290 states a second) of the rate of the bare autoencoder, start and writing
included; a reading and an encoding process with the object store between them made 285 a second, and 660
once they had started. Several encoders, or GPUs, are a pool of Ray Data actors that a `WellDatasource`
feeds: reading then scales to all nodes.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from ray.data import ActorPoolStrategy

from lola.core.errors import DataError
from lola.core.waiting import Log
from lola.data.latent_shards import tensor_column
from lola.data.well.simulation_files import SimulationFile
from lola.data.well.splits import state_bytes
from lola.distributed.cluster.resources import ResourceRequest
from lola.distributed.cluster.waits import log_while_waiting
from lola.distributed.jobs.datasource import map_blocks
from lola.emulation.cache_config import CacheConfig
from lola.emulation.encoding import BlockEncoder, EncoderInput, tensors
from lola.storage.remote import AnyPath
from lola.training.peak import one_thread

BLOCK_BYTES = 2**29  # of states that are encoded at once, unless one is larger
ENCODER_CPUS = 0.5  # small requests let reading and encoding share few cores


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedBlock:
    """Latents of consecutive states of one variant of a trajectory.

    Arguments:
        trajectory: The number of the trajectory in its split.
        parameters: Shape `(P,)`.
        latents: Shape `(T, C, *grid)`.
        fault: Why there are no latents, if not empty.
    """

    shard: int
    trajectory: int
    variant: int
    parameters: np.ndarray
    latents: np.ndarray
    fault: str


class FaultReportingFile(SimulationFile):
    """A shard whose stream of blocks ends with the fault, in a block of nothing, where it cannot be read."""

    def blocks(self, number: int, states: int) -> Iterator[pa.Table]:
        """The file's blocks in order, each with a column `fault`."""
        try:
            for block in super().blocks(number, states):
                yield block.append_column("fault", pa.array([""]))
        except DataError as error:
            nothing = np.zeros((states, len(self.split.system.channels), *self.split.grid), np.float32)
            entry = {"shard": number, "trajectory": self.members[0], "start": 0, "count": 0}
            yield pa.table(
                {name: pa.array([value], pa.int32()) for name, value in entry.items()}
                | {"states": tensor_column([nothing]), "fault": pa.array([str(error)])}
            )


def encoder_request(config: CacheConfig) -> ResourceRequest | None:
    """What an encoder takes of the cluster; None if it is the calling process."""
    alone = config.actors == 1 and not config.gpus
    return None if alone else ResourceRequest("encoders", "", 1, ENCODER_CPUS, config.gpus)


def states_at_once(steps: int, config: CacheConfig, size: int) -> int:
    """How many states a block has: those of a trajectory are divided evenly, and memory holds several blocks.

    Arguments:
        steps: States of a trajectory.
        config: What the cache holds.
        size: Bytes of a state.
    """
    most = min(config.block, max(1, BLOCK_BYTES // size))
    return -(-steps // -(-steps // most))


def encoded_blocks(
    shards: Mapping[int, FaultReportingFile],
    longest: int,
    model: AnyPath,
    config: CacheConfig,
    log: Log = print,
) -> Iterator[EncodedBlock]:
    """The encoded states of some shards: shards, trajectories, blocks and variants in order.

    Arguments:
        longest: The most states of a trajectory of the cache, which all blocks are sized by: numbers must not
            depend on which shards are left to encode.
        model: The folder of the finished autoencoder.
    """
    states = states_at_once(longest, config, state_bytes(next(iter(shards.values())).split))
    request, title = encoder_request(config), f"encoding by {model.name}"
    tables = (_in_actors if request else _in_process)(shards, states, model, config)
    for table in log_while_waiting(tables, title, request, log) if request else tables:
        latents, parameters = tensors(table, "latents"), tensors(table, "parameters")
        for row, entry in enumerate(table.drop_columns(["latents", "parameters"]).to_pylist()):
            yield EncodedBlock(
                shard=entry["shard"],
                trajectory=entry["trajectory"],
                variant=entry["variant"],
                parameters=parameters[row],
                latents=latents[row, : entry["count"]],
                fault=entry["fault"],
            )


def _in_process(
    shards: Mapping[int, FaultReportingFile], states: int, model: AnyPath, config: CacheConfig
) -> Iterator[pa.Table]:
    """Encode in this process, on one core as an actor would, since arithmetic may depend on their number."""
    encoder = BlockEncoder(model, shards, config)
    tables = itertools.chain.from_iterable(shard.blocks(number, states) for number, shard in shards.items())
    with one_thread():
        yield from map(encoder.encode, _prefetch(map(encoder.prepare, tables)))


def _in_actors(
    shards: Mapping[int, FaultReportingFile], states: int, model: AnyPath, config: CacheConfig
) -> Iterator[pa.Table]:
    return map_blocks(
        shards,
        states,
        BlockEncoder,
        ordered=True,
        # More readers take what Ray Data shares among them and new actors, which then never start on a node
        # that arrives; readers of GPUs are not limited, since one is too slow for one GPU.
        readers=None if config.gpus else config.actors,
        fn_constructor_args=(model, shards, config),
        compute=ActorPoolStrategy(min_size=1, max_size=config.actors),
        num_cpus=ENCODER_CPUS,
        num_gpus=config.gpus or None,
    )


def _prefetch(items: Iterable[EncoderInput]) -> Iterator[EncoderInput]:
    """The items, each made in a thread while the one before it is used."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, iterator, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, iterator, None)
            yield item
