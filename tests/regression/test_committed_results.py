"""The results that are committed: their READMEs are what their scores say."""

from pathlib import Path

import pytest

from lola.core.strict_json import loads
from lola.data.description import get_system
from lola.workflows.kept_results import ABOUT, README, SCORES, render, summarise_results

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob(f"*/{ABOUT}"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_readmes_are_computed_from_committed_scores(folder):
    system = loads((folder / ABOUT).read_bytes())["system"]
    assert (folder / README).read_text("utf-8") == render(folder, get_system(system))
    assert (folder / SCORES).stat().st_size < (5e6 if folder.name == "study" else 7e6)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6


def test_the_readme_shows_what_the_study_says():
    table = summarise_results(RESULTS / "study", get_system("euler"))
    assert f"<!-- study -->\n\n{table.strip()}\n\n<!-- end of study -->" in (
        RESULTS.parents[1] / "README.md"
    ).read_text("utf-8")
