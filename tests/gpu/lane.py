"""The device of the tests on a GPU, and the record of how far it was from the CPU.

Every comparison has a tolerance between GPU and CPU, and the record holds the largest difference.
A rehearsal (`LOLA_GPU_REHEARSAL=1`) takes the CPU for the device: it tests the tests.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import torch

REHEARSAL = os.environ.get("LOLA_GPU_REHEARSAL") == "1"
DEVICE = torch.device("cpu" if REHEARSAL else "cuda:0")
CPU = torch.device("cpu")


@dataclasses.dataclass
class Record:
    """What was compared, and whatever else is worth keeping of a run on a GPU.

    Arguments:
        compared: Tolerance and largest difference by what was compared.
        notes: Further lines.
    """

    compared: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def near(self, what: str, found: Any, expected: Any, tolerance: float) -> None:
        """Assert that numbers agree: their largest difference over the largest magnitude expected.

        Where one is not finite, the other must be the same.
        """
        found, expected = (torch.as_tensor(values).detach().cpu().double() for values in (found, expected))
        assert found.shape == expected.shape, f"{what}: {tuple(found.shape)}, not {tuple(expected.shape)}"
        finite = expected.isfinite()
        torch.testing.assert_close(found[~finite], expected[~finite], equal_nan=True, msg=what)
        assert found[finite].isfinite().all(), f"{what}: not finite"
        scale = expected[finite].abs().max().clamp_min(1e-12) if finite.any() else torch.ones(())
        difference = float(((found - expected)[finite].abs().max() / scale) if finite.any() else 0.0)
        worst = max(difference, self.compared.get(what, (tolerance, 0.0))[1])
        self.compared[what] = tolerance, worst
        assert difference <= tolerance, f"{what}: differs by {difference:.2e}, more than {tolerance:g}"

    def lines(self) -> Iterator[str]:
        """The record as text."""
        if self.compared:
            width = max(map(len, self.compared))
            yield f"{'compared':<{width}}  tolerance  largest difference"
            for what, (tolerance, worst) in self.compared.items():
                yield f"{what:<{width}}  {tolerance:9.0e}  {worst:.1e}"
        yield from self.notes
