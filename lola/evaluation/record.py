"""What stands with the run of an evaluation: scores, their table, a curve over lead times, and pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola.data.domain import inside
from lola.data.planes import as_plane
from lola.data.well.splits import WellSplit
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scoring import blank
from lola.evaluation.tables.cells import CellTable
from lola.evaluation.tables.curves import MEAN, curves_of
from lola.evaluation.tables.formats import plain_markdown, scores_by_range
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage, atomic_path

CURVES = ("vrmse", "crps_relative")  # means over fields, whose units differ
STILL, FILM, SCORES = "states.png", "film.gif", "scores.csv"
RECONSTRUCTION = "reconstruction.png"  # in place of the still, with the run of an autoencoder too


def record_scores(
    stage: Stage,
    config: EvaluationConfig,
    metrics: pa.Table,
    summary: dict[str, float],
    seconds: float,
    rollouts: int,
    diverged: int,
) -> None:
    """Record the scores of an evaluation and its description; `metrics.parquet` exists.

    Arguments:
        metrics: Its tidy rows.
        summary: Metrics by range, as `summarise` returns them.
        seconds: Those per state of one member.
        rollouts, diverged: How many there are, and how many did not stay finite.
    """
    log, split = EventLog(stage.folder), config.split
    members = pc.max(metrics["members"]).as_py()
    trajectories = len(metrics["trajectory"].unify_dictionaries().unique())
    further = {"seconds_per_state": seconds, "ensemble_seconds_per_state": members * seconds}
    further["diverged_rollouts"] = float(diverged)
    log.metrics(0, summary | {f"{split}/{name}": value for name, value in further.items()})
    for metric, points in _over_lead_times(metrics):
        log.curve(f"{split}_by_lead_time/{metric}", points)
    table = scores_by_range(summary, split)
    log.note(
        f"Scores of {stage.what} on {trajectories} trajectories of the {split} split, {rollouts} rollouts of "
        f"{members} {'members' if members > 1 else 'member'}, by range of lead times; "
        f"{members * seconds:.3g} s per state of all members.\n\n"
        f"{plain_markdown(table)}\n"
        f"`{split}_by_lead_time/...` are curves over lead time, which MLflow calls the step. The artifact "
        "`metrics.parquet` has scores by trajectory, field and lead time.\n"
    )
    with atomic_path(stage.folder / SCORES) as tmp_path:
        table.to_csv(tmp_path, index=False)
    for name in ("metrics.parquet", SCORES):
        log.artifact(stage.folder / name)


def _over_lead_times(metrics: pa.Table) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """The names and the means over fields of metrics against the truth, by lead time."""
    cells = CellTable(metrics)
    for metric in CURVES:
        for curve in curves_of(cells.of(metric), metric, "truth", draws=1):
            if curve.field == MEAN:
                yield metric, list(zip(curve.lead_times.tolist(), curve.value.tolist(), strict=True))


def record_pictures(
    stage: Stage,
    config: EvaluationConfig,
    split: WellSplit,
    place: tuple[int, int],
    predicted: np.ndarray,
    autoencoder: AnyPath | None,
) -> None:
    """Draw the shown field of one scored trajectory; of a reconstruction, for the autoencoder's run too.

    That run has the picture of its last weights, not of their average, and has none on an object store, where
    one machine alone may write its event log.

    Arguments:
        place: The number of the trajectory, and its first known state.
        predicted: The mean of its ensemble, or a single prediction, `(C, L, *grid)`.
        autoencoder: The folder of the autoencoder, if there is one.
    """
    index, start = place
    system, log = split.system, EventLog(stage.folder)
    truth = split.read(index, start, split.trajectories[index].steps, config.stride)[:, config.context :]
    valid = inside(truth, system)
    truth = blank(truth, None if valid is None else valid[0, 0])
    channel, dimensions = system.channels.index(system.shown), system.dimensions
    fields = as_plane(truth[channel].numpy(), dimensions), as_plane(predicted[channel], dimensions)
    lead_times = [config.stride * (number + 1) for number in range(truth.shape[1])]
    alone = config.subject == "autoencoder"
    titles = (system.shown.replace("_", " "), "reconstruction" if alone else "prediction")
    picture = stage.folder / (RECONSTRUCTION if alone else STILL)
    with atomic_path(picture) as still, atomic_path(stage.folder / FILM) as film:
        from lola.evaluation.example_pictures import write_pictures  # here, since matplotlib is large

        write_pictures(*fields, lead_times, titles, still, film)
    for path in (picture, stage.folder / FILM):
        log.artifact(path)
    if alone and config.weights == "raw" and isinstance(autoencoder, Path):
        EventLog(autoencoder).artifact(picture)
