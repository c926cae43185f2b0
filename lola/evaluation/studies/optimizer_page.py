r"""The optimiser study: training curves over seeds, and the paper's Table 4.

A run is an arm (an optimiser, with or without identity initialisation), a learning rate r and a seed s. With
v_rs(n) the validation loss after n of N steps, every arm is shown at its best rate

    r* = argmin_r mean_s v_rs(N)

of its grid, as the mean over seeds with the least and the greatest of them. A run that did not stay finite
makes its rate the worst.

The curves are a table with the columns `arm, optimizer, identity_init, learning_rate, seed, step, seconds,
train_loss, valid_loss`, where `seconds` is the time of the training steps so far and `train_loss` the mean
since the row before.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lola.evaluation.page.charts import Axis, Chart, Choice, Series
from lola.evaluation.page.page import Section
from lola.evaluation.tables.paper import LOSSES

SHARES = (0.1, 0.3, 1.0)
"""Shares of the steps at which losses are tabulated."""


def name_arm(optimizer: str, identity_init: bool) -> str:
    name = {"adam": "Adam", "adamw": "AdamW"}.get(optimizer, optimizer.upper())
    return name if identity_init else f"{name}, no identity init"


def last_losses(curves: pd.DataFrame) -> pd.DataFrame:
    """`mean`, `low` and `high` over seeds of the last validation loss, one row per arm and rate.

    What is not finite counts as infinite.
    """
    last = curves[curves["step"] == curves["step"].max()]
    last = last.assign(valid_loss=last["valid_loss"].where(np.isfinite(last["valid_loss"]), np.inf))
    groups = last.groupby(["arm", "learning_rate"], sort=False)["valid_loss"]
    return groups.agg(mean="mean", low="min", high="max").reset_index()


def at_best_rates(curves: pd.DataFrame) -> pd.DataFrame:
    losses = last_losses(curves)
    best = losses.loc[losses.groupby("arm", sort=False)["mean"].idxmin(), ["arm", "learning_rate"]]
    return curves.merge(best, on=["arm", "learning_rate"])


def at_share(run: pd.DataFrame, share: float) -> pd.DataFrame:
    """The rows of the first recorded step that is at least a share of all."""
    return run[run["step"] == run.loc[run["step"] >= share * run["step"].max(), "step"].min()]


def optimizer_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Every arm at its best rate as in Table 4, followed by the printed numbers.

    Times are those of all training steps, over the first arm's.
    """
    rows = []
    best = at_best_rates(curves)
    base = _seconds(best[best["arm"] == best["arm"].iloc[0]])
    for _, run in best.groupby("arm", sort=False):
        first = run.iloc[0]
        key = (str(first["optimizer"]), bool(first["identity_init"]))
        row = {
            "optimiser": name_arm(key[0], True),
            "id. init": "w/" if key[1] else "w/o",
            "learning rate": f"{first['learning_rate']:g}",
        }
        for share in SHARES:
            rows_then = at_share(run, share)
            loss = rows_then["valid_loss"]
            row[f"step {rows_then['step'].iloc[0]}"] = (
                f"{loss.mean():.3f} ({loss.min():.3f}–{loss.max():.3f})"
            )
        seconds = _seconds(run)
        row["ms per step"] = f"{1e3 * seconds / run['step'].max():.0f}"
        row["time"] = f"{seconds / base:.2f}×"
        printed = LOSSES.get(key)
        for i, epoch in enumerate((10, 100, 1000)):
            row[f"paper, epoch {epoch}"] = f"{printed[i]:.3f}" if printed else "–"
        row["paper, time"] = f"{printed[3] / LOSSES['adam', False][3]:.2f}×" if printed else "–"
        rows.append(row)
    return pd.DataFrame(rows)


def rate_table(curves: pd.DataFrame) -> pd.DataFrame:
    """The last validation loss at every rate that was tried; the best of each arm is marked."""
    losses = last_losses(curves)
    best = losses.groupby("arm")["mean"].transform("min") == losses["mean"]
    return pd.DataFrame(
        {
            "optimiser": losses["arm"],
            "learning rate": losses["learning_rate"].map("{:g}".format),
            "validation loss": losses["mean"].map("{:.4f}".format),
            "least to greatest": [
                f"{low:.4f} to {high:.4f}" for low, high in zip(losses["low"], losses["high"], strict=True)
            ],
            "chosen": np.where(best, "yes", ""),
        }
    )


def sections(curves: pd.DataFrame) -> list[Section]:
    best = at_best_rates(curves)
    band = "Lines are means over seeds, bands reach from the least to the greatest."
    return [
        Section(
            "optimizers",
            "Optimisers",
            "Validation loss after a tenth, three tenths and all of the steps: the mean over seeds, and "
            "the range. The paper's columns are its Table 4, after 1, 10 and 98 % of its training. Times are "
            "over those of the first row.",
            plain=optimizer_table(curves),
        ),
        Section("curves_steps", "Loss against steps", band, chart=loss_chart(best, "step", "steps")),
        Section(
            "curves_seconds",
            "Loss against time",
            f"{band} Seconds are those of the training steps; validation and checkpoints are left out.",
            chart=loss_chart(best, "seconds", "seconds of training"),
        ),
        Section(
            "rates",
            "Learning rates",
            "Every optimiser is shown at the rate of its grid with the least mean validation loss at the "
            "end. A chosen rate at the edge of its grid means that the grid should be wider.",
            plain=rate_table(curves),
        ),
    ]


def loss_chart(curves: pd.DataFrame, x: str, label: str) -> Chart:
    """Losses of every arm against a column of its curves: means over seeds, and their ranges."""
    names = {"train_loss": "training loss", "valid_loss": "validation loss"}
    series = []
    for metric in names:
        for i, (arm, group) in enumerate(curves.groupby("arm", sort=False)):
            places, losses = (
                group.pivot(index="step", columns="seed", values=name).to_numpy(float) for name in (x, metric)
            )
            keys = {"metric": metric}
            series.append(
                Series(
                    *(str(arm), f"shade-{i % 6}", keys, places.mean(1)),
                    *(losses.mean(1), losses.min(1), losses.max(1)),
                )
            )
    choice = Choice("metric", "loss", list(names.items()), "valid_loss")
    axes = {metric: Axis(name, log=True) for metric, name in names.items()}
    return Chart(f"Losses over {label}", Axis(label), axes, series, [choice], rows="metric")


def findings(curves: pd.DataFrame) -> Iterator[str]:
    """What the curves say, each arm against the first."""
    best = at_best_rates(curves)
    arms = {str(arm): run for arm, run in best.groupby("arm", sort=False)}
    losses = last_losses(best).set_index("arm")
    base, *others = arms
    target, steps = losses.loc[base, "mean"], int(best["step"].max())
    yield f"After {steps} steps {base} has a validation loss of {target:.4f}."
    for arm in others:
        mean = losses.loc[arm, "mean"]
        are_separate = losses.loc[arm, "low"] > losses.loc[base, "high"]
        are_separate |= losses.loc[arm, "high"] < losses.loc[base, "low"]
        remark = "" if are_separate else "; the ranges over seeds overlap"
        reached = _reached(arms[arm], target, arms[base])
        yield f"{arm} has {mean:.4f}, {mean / target:.2f} times that{remark}.{reached}"
    seeds = best["seed"].nunique()
    yield f"Each is the mean of {seeds} {'seed' if seeds == 1 else 'seeds'}."


def _reached(run: pd.DataFrame, target: float, base: pd.DataFrame) -> str:
    """When an arm's mean first reaches the last loss of the first arm."""
    means = run.groupby("step")[["valid_loss", "seconds"]].mean()
    below = means[means["valid_loss"] <= target]
    if below.empty:
        return ""
    seconds, whole = below["seconds"].iloc[0], _seconds(base)
    return f" It reaches that loss after {below.index[0]} steps and {seconds:.3g} s instead of {whole:.3g} s."


def _seconds(run: pd.DataFrame) -> float:
    """The time of all steps, averaged over seeds."""
    return float(run.loc[run["step"] == run["step"].max(), "seconds"].mean())
