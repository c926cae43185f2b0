import numpy as np
import pandas as pd
import pytest

from lola.data.description import EULER
from lola.evaluation.page.page import Page, write_page
from lola.evaluation.studies.optimizer_page import (
    at_best_rates,
    findings,
    last_losses,
    name_arm,
    optimizer_table,
    rate_table,
    sections,
)

STEPS = np.arange(10, 101, 10)
ENDS = {  # the last loss by optimiser, initialisation and rate; seeds differ by 2 % around it
    ("adam", False): {1e-3: 0.20, 3e-3: 0.30},
    ("adam", True): {1e-3: 0.198, 3e-3: 0.10},
    ("psgd", True): {1e-3: 0.05, 3e-3: np.nan},
}
SECONDS = {"adam": 0.1, "psgd": 0.2}


@pytest.fixture
def curves():
    parts = []
    for (optimizer, identity_init), ends in ENDS.items():
        for rate, end in ends.items():
            for seed in (0, 1, 2):
                loss = end * (1 + 0.02 * (seed - 1)) * 100 / STEPS
                parts.append(
                    pd.DataFrame(
                        {
                            "arm": name_arm(optimizer, identity_init),
                            "optimizer": optimizer,
                            "identity_init": identity_init,
                            "learning_rate": rate,
                            "seed": seed,
                            "step": STEPS,
                            "seconds": SECONDS[optimizer] * STEPS,
                            "train_loss": 0.9 * loss,
                            "valid_loss": loss,
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


def test_arms_are_shown_at_their_best_rates(curves):
    best = at_best_rates(curves).groupby("arm", sort=False)["learning_rate"].unique().map(list).to_dict()
    assert best == {"Adam, no identity init": [1e-3], "Adam": [3e-3], "PSGD": [1e-3]}
    diverged = last_losses(curves).set_index(["arm", "learning_rate"]).loc[("PSGD", 3e-3)]
    assert np.isinf(diverged["mean"])


def test_an_arm_that_diverged_at_every_rate_keeps_a_row(curves):
    curves.loc[curves["optimizer"] == "psgd", "valid_loss"] = np.nan
    assert list(optimizer_table(curves)["optimiser"]) == ["Adam", "Adam", "PSGD"]
    assert any("PSGD has inf" in sentence for sentence in findings(curves))


def test_the_table_has_our_figures_and_the_printed_ones(curves):
    table = optimizer_table(curves).set_index(["optimiser", "id. init"])
    psgd = table.loc[("PSGD", "w/")]
    assert psgd["step 10"] == "0.500 (0.490–0.510)"
    assert psgd["step 30"] == "0.167 (0.163–0.170)"
    assert psgd["step 100"] == "0.050 (0.049–0.051)"
    assert psgd["ms per step"] == "200"
    assert psgd["time"] == "2.00×"
    assert list(psgd[-4:]) == ["0.023", "0.015", "0.011", "1.32×"]
    assert table.loc[("Adam", "w/o"), "time"] == "1.00×"
    assert table.loc[("Adam", "w/o"), "paper, epoch 10"] == "0.065"


def test_every_rate_is_listed(curves):
    table = rate_table(curves)
    assert len(table) == 6
    assert list(table["chosen"]) == ["yes", "", "", "yes", "yes", ""]
    assert table["validation loss"][0] == "0.2000"
    assert table["least to greatest"][0] == "0.1960 to 0.2040"


def test_findings_compare_with_the_first_arm(curves):
    first, adam, psgd, last = findings(curves)
    assert first == "After 100 steps Adam, no identity init has a validation loss of 0.2000."
    # Adam's loss is 0.1 * 100 / step: at most 0.2 from step 50 on, of a tenth of a second each
    assert (
        adam
        == "Adam has 0.1000, 0.50 times that. It reaches that loss after 50 steps and 5 s instead of 10 s."
    )
    assert (
        psgd
        == "PSGD has 0.0500, 0.25 times that. It reaches that loss after 30 steps and 6 s instead of 10 s."
    )
    assert last == "Each is the mean of 3 seeds."
    slow = curves[~((curves["arm"] == "Adam") & (curves["learning_rate"] == 3e-3))]
    assert any("overlap" in sentence for sentence in findings(slow))


def test_the_page_holds_it_all(curves, tmp_path):
    page = Page(title="Study", system=EULER, findings=list(findings(curves)), sections=sections(curves))
    text = write_page(tmp_path, page).read_text("utf-8")
    assert text.count('<figure class="chart"') == 2
    assert "0.050 (0.049–0.051)" in text
    assert "paper, epoch 1000" in text
    names = {path.name for path in tmp_path.iterdir()}
    tables = {f"{stem}.{end}" for stem in ("optimizers", "rates") for end in ("csv", "md", "tex")}
    pictures = {f"curves_{x}.{end}" for x in ("steps", "seconds") for end in ("png", "svg")}
    assert names == {"report.html"} | tables | pictures
    lines = (tmp_path / "optimizers.md").read_text("utf-8").splitlines()
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1
