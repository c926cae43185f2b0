"""The scores of an ensemble, by name."""

from collections.abc import Callable

import pytest
from torch import Tensor

from lola.evaluation.scores.ensemble import score_ensemble


@pytest.fixture(scope="session")
def scores_of() -> Callable[..., dict[str, Tensor]]:
    """A function that scores members `(M, ..., *grid)` against a truth `(..., *grid)`."""

    def scores_of(truth: Tensor, members: Tensor, *, spatial: int) -> dict[str, Tensor]:
        scores = score_ensemble({"truth": truth}, members, spatial=spatial)[0]["truth"]
        return scores.metrics | scores.spectra | {"edges": scores.edges}

    return scores_of
