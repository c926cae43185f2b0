"""The configuration of latent caches."""

import dataclasses
from typing import Annotated, Literal

from lola.core.config import Config, Count, Gpus, Size, Within, check_gpus, require, runtime_field
from lola.data.systems import Symmetries
from lola.training.precision import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig(Config):
    """The contents of a latent cache.

    Arguments:
        dtype: The type of the stored latents.
        precision: The type of the autoencoder's arithmetic.
        variants: Versions of each training trajectory: the simulated one, then augmented ones, all different.
        seed: Seeds the augmentations.
        symmetries: Symmetries that augmented versions are drawn from; `published` also flips gravity.
        block: Most states encoded at once; a trajectory's are divided evenly.
        skip_bad_shards: Whether to leave out simulation files that cannot be read; the manifest lists them.
        actors: Largest number of encoders.
        gpus: GPUs per encoder.
        compile: Whether encoders on GPUs are compiled, which takes each half a minute per
            length of a block.
    """

    common = ("variants",)

    dtype: Literal["float32", "float16"] = "float32"
    precision: Precision = "float32"
    variants: Annotated[int, Within("[1, 256]")] = 1
    seed: int = 0
    symmetries: Symmetries = "plain"
    block: Count = 25
    skip_bad_shards: bool = False
    actors: Size = runtime_field(1)
    gpus: Gpus = runtime_field(0.0)
    compile: bool = runtime_field(False)

    def validate(self) -> None:
        check_gpus(self.gpus)
        require(
            self.gpus > 0 or not self.compile,
            "--compile is of encoders on GPUs; give --gpus above 0, or --no-compile",
        )
