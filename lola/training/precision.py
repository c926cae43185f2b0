"""The type of the networks' arithmetic."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


Precision = Literal["float32", "bfloat16"]


@contextlib.contextmanager
def precision(name: Precision, device: "torch.device") -> Iterator[None]:
    """Run networks in a precision; float32 is left alone."""
    import torch

    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=name == "bfloat16"):
        yield
