"""The results that are committed: their READMEs are what their scores say."""

from pathlib import Path

import pytest

from lola.core.strict_json import loads
from lola.data.description import get_system
from lola.workflows.kept_results import ABOUT, README, SCORES, render

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob(f"*/{ABOUT}"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_readmes_are_computed_from_committed_scores(folder):
    system = loads((folder / ABOUT).read_bytes())["system"]
    assert (folder / README).read_text() == render(folder, get_system(system))
    assert (folder / SCORES).stat().st_size < 5e6
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6
