"""The sentences of a study: which methods they compare, and that their numbers are those of the errors."""

import re

import numpy as np
import pyarrow as pa
import pytest
from pages import aggregates
from tidy_tables import tidy

from lola.evaluation.page.study_findings import study_findings
from lola.evaluation.tables.significance import least_p
from lola.models.kinds import KINDS, arm_kind, shown_with

LEAD_TIMES = (4, 24, 64)
DIFFICULTY = np.random.default_rng(0).uniform(0.5, 1.5, (16, 1)) * np.ones(3)


@pytest.fixture
def spectra(sweep):
    return sweep[1].slice(0, 0)


def scored(model, crps, spread=None, power=1.0, **keys):
    """A method whose CRPS, spread over skill, and error of spectra are these on every trajectory."""
    parts = {
        "crps": crps * DIFFICULTY,
        "variance": np.ones_like(DIFFICULTY),
        "spectrum_rmse_high": power * DIFFICULTY,
    }
    if spread is not None:
        parts |= {"skill": DIFFICULTY, "spread": spread * DIFFICULTY}
        keys = {"members": 8} | keys
    return [tidy(values, name, model, LEAD_TIMES, **keys) for name, values in parts.items()]


def said(parts, spectra, sources=None):
    """What stands before the sentences, and these by title."""
    sentences = study_findings(aggregates(pa.concat_tables(parts), spectra).main, sources)
    if not sentences:
        return "", {}
    titled = [sentence.removeprefix("**").split(".** ") for sentence in sentences[1:]]
    return sentences[0], dict(titled)


def changes(text):
    """All changes of a sentence in percent."""
    return [int(number) for number in re.findall(r"([+-]\d+) % \(", text)]


PIXEL = {"space": "pixel", "compression": 1.0}


def whole():
    """Three rates, and pixel space: every effect is known."""
    parts = scored("neural_solver", 0.4, **PIXEL)
    for rate, harder in ((4.0, 1.0), (16.0, 1.1), (64.0, 1.5)):
        parts += scored("autoencoder", 0.1 * harder**2, compression=rate)
        parts += scored("neural_solver", 0.4 * harder, compression=rate)
        for steps, more in ((1, 1.2), (16, 1.0)):
            parts += scored(
                "diffusion",
                0.3 * harder * more,
                spread=0.8 / harder,
                power=0.5,
                compression=rate,
                solver_steps=steps,
            )
        parts += scored("crps_ensemble", 0.2 * harder, spread=0.9, compression=rate)
    return parts


def test_sentences_have_the_changes_of_the_errors(spectra):
    first, found = said(whole(), spectra)
    assert "16 test trajectories" in first
    tests = 8 + 3 + 6 + 5 + 1
    assert f"for these {tests} tests" in first
    rates = found["Accuracy against rate"]
    assert rates.startswith(
        "CRPS against that at 4×:\n  - autoencoder alone: at 16× +21 % (+21 to +21 %), at"
    )
    assert changes(rates) == [21, 125, 10, 50, 10, 50, 10, 50]
    assert changes(found["Latent against pixel space"]) == [0, 10, 50]
    kinds = found["Generative against deterministic"]
    assert kinds.startswith(
        "Against the neural solver at 16×:\n  - diffusion: CRPS 1–20 -25 % (-25 to -25 %), CRPS"
    )
    assert changes(kinds) == [-25, -25, -50, -50, -50, 0]
    calibration = found["Calibration against rate"]
    assert changes(calibration.split("levels")[0]) == [-9, -33, 0, 0, 50]
    assert calibration.endswith(
        "levels over all lead times, 1 if calibrated: diffusion 0.80 at 4×, 0.73 at 16×, 0.53 at 64×; CRPS "
        "ensemble 0.90 at 4×, 0.90 at 16×, 0.90 at 64×"
    )
    assert found["Evaluations per window"].startswith(
        "CRPS against that with 16 evaluations at 16×:\n  - diffusion: with 1 +20 % (+20 to +20 %)"
    )
    assert "Recipes" not in found


def test_equal_errors_are_no_difference_and_large_ones_are_certain(spectra):
    _, found = said(whole(), spectra)
    pixel = found["Latent against pixel space"]
    assert "at 4× +0 % (+0 to +0 %, p = 1)" in pixel
    assert "at 64× +50 % (+50 to +50 %)" in pixel


def test_p_is_corrected_for_all_tests_of_the_sentences(spectra):
    parts = scored("neural_solver", 0.4) + scored("neural_solver", 0.5, compression=64.0)
    parts += scored("diffusion", 0.3, spread=0.8, compression=64.0, solver_steps=16)
    sentences = study_findings(aggregates(pa.concat_tables(parts), spectra).main)
    assert "for these 4 tests" in sentences[0]  # a rate, and diffusion at one rate by three metrics
    assert least_p(16) * 4 < 0.001
    few = [part.filter(pa.compute.less(pa.compute.cast(part["trajectory"], pa.int64()), 6)) for part in parts]
    text = " ".join(study_findings(aggregates(pa.concat_tables(few), spectra).main))
    assert text.count(f"p = {4 * least_p(6):.2g}") == 3  # the spectra are equal


def test_the_rate_of_most_training_seeds_is_where_kinds_are_compared(spectra):
    parts = whole()
    for seed in (1, 2):
        parts += scored("neural_solver", 0.5, compression=64.0, training_seed=seed)
    _, found = said(parts, spectra)
    assert found["Generative against deterministic"].startswith("Against the neural solver at 64×")
    assert found["Evaluations per window"].startswith("CRPS against that with 16 evaluations at 64×")


def test_arms_are_compared_with_the_first_of_their_kind_alone(spectra):
    parts = whole() + scored("other", 0.8, compression=16.0)
    parts += scored("fields", 0.5, **PIXEL)
    arms = [
        arm_kind(KINDS["neural_solver"], "other", "Published recipe", 0),
        arm_kind(KINDS["neural_solver"], "fields", "Other fields", 1),
    ]
    with shown_with(arms):
        _, found = said(parts, spectra)
    start, change = found["Recipes"].split("\n  - ")
    assert start == "CRPS at 16× against that of the emulator in parentheses:"
    assert change.startswith("published recipe (neural solver): +82 % (")
    assert changes(found["Recipes"]) == [82]
    assert changes(found["Latent against pixel space"]) == [0, 10, 50]


def test_warm_started_ones_are_compared_with_other_kinds_and_with_their_teachers(spectra):
    parts = whole() + scored("warm", 0.1, spread=0.9, compression=16.0)
    for steps, crps in ((2, 0.36), (16, 0.33)):
        parts += scored("student", crps, spread=0.8, compression=16.0, solver_steps=steps)
    arms = [
        arm_kind(KINDS["crps_ensemble"], "warm", "Warm ensemble", 0),
        arm_kind(KINDS["shortcut"], "student", "Student", 1),
    ]
    with shown_with(arms):
        _, found = said(parts, spectra, {"warm": "neural_solver", "student": "diffusion"})
    assert "- warm ensemble: CRPS 1–20 -77 % (" in found["Generative against deterministic"]
    taught = found["Fewer evaluations than the teacher's"]
    assert taught.startswith("CRPS at 16×:\n  - student against diffusion: with 2 +9 % (")
    assert changes(taught) == [9]  # with fewer than the teacher's alone
    assert "Fewer evaluations than the teacher's" not in said(whole(), spectra)[1]


@pytest.mark.parametrize(("first", "mark"), [(0, "†"), (1, "")])
def test_intervals_over_training_seeds_are_marked(spectra, first, mark):
    parts = []
    for seed in (0, 1, 2):
        parts += scored("neural_solver", 0.4 + 0.1 * seed, training_seed=first + seed)
        parts += scored("diffusion", 0.3 + 0.1 * seed, spread=0.8, solver_steps=16, training_seed=seed)
    parts += scored("crps_ensemble", 0.2, spread=0.8)
    (kinds,) = said(parts, spectra)[1].values()
    _, diffusion, ensemble = kinds.split("\n  - ")
    assert re.match(rf"diffusion: CRPS 1–20 -20 % \(-\d+ to -\d+ %\){mark}, CRPS", diffusion)
    assert ("†" in diffusion) == bool(mark)
    assert "†" not in ensemble


def test_spread_over_skill_of_fields_with_other_units_counts_alike(spectra):
    """A trajectory's ratio is a mean of ratios: a field in another unit changes nothing."""
    ratios = []
    for unit in (1.0, 1000.0):
        parts = []
        for rate, spread in ((4.0, 0.8), (16.0, 0.4)):
            for field, factor, own in (("density", 1.0, spread), ("energy", unit, 0.8)):
                for name, value in (("skill", 1.0), ("spread", own)):
                    keys = {"field": field, "members": 8, "compression": rate, "solver_steps": 16}
                    values = factor * value * DIFFICULTY
                    parts.append(tidy(values, name, "diffusion", LEAD_TIMES, **keys))
        ratios.append(changes(said(parts, spectra)[1]["Calibration against rate"].split("levels")[0]))
    assert ratios == [[-25], [-25]]


def test_what_cannot_be_compared_is_left_out(spectra):
    one = scored("neural_solver", 0.4)
    assert said(one, spectra) == ("", {})
    assert said(scored("neural_solver", 0.4, **PIXEL), spectra) == ("", {})
    flat = scored("diffusion", 0.3, spread=0.0, solver_steps=16)
    flat += scored("diffusion", 0.3, spread=0.0, solver_steps=16, compression=64.0)
    assert set(said(flat, spectra)[1]) == {"Accuracy against rate"}  # no spread has no logarithm


def test_an_emulator_that_is_lost_on_a_trajectory_has_no_interval(spectra):
    values = 0.5 * DIFFICULTY
    values[3, 1] = np.nan
    parts = scored("neural_solver", 0.4)
    lost = scored("neural_solver", 0.5, compression=64.0)[1:]
    parts += [tidy(values, "crps", lead_times=LEAD_TIMES, compression=64.0), *lost]
    assert "at 64× not finite" in said(parts, spectra)[1]["Accuracy against rate"]


def test_calibration_of_what_is_lost_on_a_trajectory_is_not_finite(spectra):
    """It is not that of the others."""
    lost = 0.4 * DIFFICULTY
    lost[3, 1] = np.inf
    parts = scored("diffusion", 0.3, spread=0.8, compression=4.0, solver_steps=16)
    keys = {"members": 8, "compression": 64.0, "solver_steps": 16}
    for name, values in (("skill", DIFFICULTY), ("spread", lost)):
        parts.append(tidy(values, name, "diffusion", LEAD_TIMES, **keys))
    text = said(parts, spectra)[1]["Calibration against rate"]
    assert "diffusion: at 64× not finite" in text
