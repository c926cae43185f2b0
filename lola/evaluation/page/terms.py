"""What the scores of a page mean, in one table."""

import pandas as pd

from lola.evaluation.page.page import Section

TERMS = (
    ("VRMSE", "Root mean squared error of the ensemble's mean over the standard deviation of the true field, "
     "averaged over trajectories, fields and lead times; the published tables list it.",
     "0; a constant field, the truth's mean, has 1"),
    ("pooled VRMSE", "The same, with squared errors and variances averaged over trajectories before they are "
     "divided.", "0; 1 as above"),
    ("median VRMSE", "The median over trajectories, instead of their mean.", "0; 1 as above"),
    ("NRMSE", "The error over the root mean square of the true field, its mean included: fields far from "
     "zero have small ones.", "0"),
    ("CRPS", "Distance between the distribution of the ensemble and the true value, cell by cell; of a "
     "single prediction the absolute error. Tables divide it by the deviation of the true field.", "0"),
    ("CRPS skill", "1 less the CRPS over that of climatology, states of training trajectories at the same "
     "times.", "1; no better than climatology has 0"),
    ("energy score", "The CRPS of whole fields, or of blocks of cells, as vectors: it sees whether members "
     "have the structure of the truth.", "0"),
    ("skill", "In spread over skill: the root mean squared error of the ensemble's mean, so that less is "
     "better. Not the skill score above, of which more is better.", "0"),
    ("spread over skill", "Deviation of the members, corrected for their number, over the error of their "
     "mean.", "1; below, the ensemble is overconfident"),
    ("coverage", "Share of true values inside of the ensemble's 50 % or 90 % interval.", "0.5 or 0.9, but "
     "of M members (M - 1) / (M + 1) at most"),
    ("interval score", "Width of that interval, plus a penalty for true values outside of it.", "0"),
    ("reliability index", "Sum over ranks of the difference between how often the truth has a rank among "
     "the members and how often it should.", "0, and of few trajectories what chance gives"),
    ("valid time", "Lead time until the anomaly correlation, that of the differences of the ensemble's mean "
     "and the truth from the mean of training states at the same time, falls below "
     "0.8.", "the trajectory's end"),
    ("error of the power", "Root mean square, over wavenumbers of a band, of the relative error of the "
     "power.", "0; 1 if all power is lost, more if there is too much"),
)  # fmt: skip
"""Each score, what it is, and its best value."""


def terms() -> Section:
    table = pd.DataFrame(TERMS, columns=["score", "what it is", "best"])
    return Section("terms", "Terms", "The scores of this page.", plain=table)
