"""What the cases of the benchmark on a GPU share: the device, its peak, clocks, and limits of time."""

import contextlib
import dataclasses
import gc
import platform
import signal
import statistics
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from benchmarks.paper import Trained
from benchmarks.timing import interleave

from lola.core.errors import LolaError
from lola.models.autoencoder_config import AutoencoderConfig
from lola.training.peak import device_kind, processor_name
from lola.training.precision import Precision

ROUNDS = 3


class OutOfTime(BaseException):
    """A case takes too long; no `Exception`, so that nothing that it calls handles it."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """A context that is left by `OutOfTime` after some seconds, once Python is back from what it calls."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclasses.dataclass
class Target:
    """Where cases run, and what later ones take from earlier ones.

    Arguments:
        device: The device.
        small: Whether models are shrunk, for a rehearsal.
        peak: Operations per second of large products and convolutions, by precision and kind.
        utilisation: Fractions of the published peak that compiled trainings reached, by the kind of network.
        drawing: Seconds per state of a member of a full batch, by how it is drawn.
    """

    device: torch.device
    small: bool = False
    peak: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    utilisation: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    drawing: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def precision(self) -> Precision:
        """That of the paper's preset on GPUs; many CPUs are slow in it."""
        return "bfloat16" if self.on_gpu else "float32"

    def sized(self, trained: Trained) -> Trained:
        """A model as it is measured here."""
        found = shrink(trained) if self.small else trained
        return dataclasses.replace(found, training=found.training.replace(precision=self.precision))

    def build(self, trained: Trained) -> Any:
        """A model with random weights."""
        with self.device:
            return trained.model.build(**trained.sizes)

    def seconds(self, work: Callable[[], object], rounds: int = ROUNDS) -> float:
        """The median time of a call that has been called before."""
        return statistics.median(interleave({"": work}, rounds)[""])

    def require_memory(self, needed: float) -> None:
        """Raise `LolaError` where a GPU has too little free memory."""
        if self.on_gpu and needed > (free := torch.cuda.mem_get_info(self.device)[0]):
            raise LolaError(f"it needs about {needed / 1e9:.0f} GB, of which {free / 1e9:.0f} are free")

    def release(self) -> None:
        """Forget what was compiled, and free memory."""
        torch._dynamo.reset()
        gc.collect()  # modules and what was compiled of them refer to each other
        if self.on_gpu:
            torch.cuda.empty_cache()


def shrink(trained: Trained) -> Trained:
    """The same kind of model with few features and blocks, on an eighth of the cells along each axis."""
    model, sizes, (channels, states, *grid) = trained.model, trained.sizes, trained.shape
    if isinstance(model, AutoencoderConfig):
        levels = len(model.channels)
        model = model.replace(latent_channels=4, channels=(8,) * levels, blocks=(1,) * levels)
        fewest = model.factors(len(grid))
    else:
        fewest = model.network.patches(len(grid))[1:]
        if set(fewest) == {1}:  # in latent space
            channels, fewest = 4, (2,) * len(grid)
        sizes = sizes | {"channels": channels}
        network = model.network.replace(features=32, blocks=2, heads=2, modulation=16)
        model = model.replace(network=network)
    cells = tuple(max(least, size // 8) for least, size in zip(fewest, grid, strict=True))
    workers = trained.training.most_workers
    training = trained.training.replace(batch_size=4 * workers, accumulate=1, valid_samples=4)
    return Trained(model, sizes, (channels, states, *cells), training)


def machine(device: torch.device) -> dict[str, Any]:
    """The device, and the versions of what ran on it."""
    found: dict[str, Any] = {
        "kind": device_kind(device),
        "name": processor_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        found["name"] = torch.cuda.get_device_name(device)
        found["memory"] = torch.cuda.get_device_properties(device).total_memory
        found["cuda"], found["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    return found
