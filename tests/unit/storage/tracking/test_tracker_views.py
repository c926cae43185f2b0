"""What MLflow shows of a sweep besides its runs: views, a description, headline figures, curves."""

import json

from fakemlflow import FakeMlflow, Unreliable
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from tracked import record, run_of, steps, tracker

from lola.storage.event_log import end_offset, event_log_path
from lola.storage.tracking import Tracker, sync
from lola.storage.tracking.run_copy import OFFSET
from lola.storage.tracking.saved_views import TAG
from lola.storage.views import Conclusion, View

SWEEP = "f" * 64
COST = ("metrics", "test/seconds_per_state")
ERROR = "test/vrmse/1-20"
VIEWS = [
    View(
        name="accuracy against cost",
        condition="tags.`lola.stage` = 'evaluation'",
        order=ERROR,
        columns=(("params", "model"), ("metrics", ERROR)),
        points=((COST, ("metrics", ERROR)),),
    ),
    View("training curves", "metrics.`train/samples` > 0", "valid/loss", (), curves=("train/loss",)),
]


def state_of(fake, key):
    (experiment,) = fake.experiments.values()
    shown = json.loads(experiment.tags[TAG + key])
    return shown["name"], json.loads(shown["state"])


def concluded(root):
    each = Tracker(root, "euler")
    each.start_sweep("sweep", SWEEP, {}, VIEWS)
    each.finish_sweep(None, "FINISHED", Conclusion("# what came out", {"best/vrmse/01-20/diffusion": 0.25}))
    return each


def test_a_sweep_has_views_a_description_and_headline_figures(tmp_path, fake):
    each = concluded(tmp_path)
    name, state = state_of(fake, "lola-ffffffff-accuracy-against-cost")
    assert name == "accuracy against cost (sweep ffffffff)"
    assert state["searchFilter"] == f"tags.`lola.sweep` = '{SWEEP}' AND tags.`lola.stage` = 'evaluation'"
    assert state["columnOrder"] == ["params.`model`", f"metrics.`{ERROR}`"]
    assert set(state["columnOrder"]) < set(state["selectedColumns"])
    assert (state["orderByKey"], state["orderByAsc"]) == (f"metrics.`{ERROR}`", True)
    (section,), (chart,) = state["compareRunSections"], state["compareRunCharts"]
    assert chart["metricSectionId"] == section["uuid"]
    assert chart["xaxis"] == {"key": COST[1], "type": "METRIC"}
    assert chart["yaxis"] == {"key": ERROR, "type": "METRIC"}
    (curve,) = state_of(fake, "lola-ffffffff-training-curves")[1]["compareRunCharts"]
    assert (curve["type"], curve["metricKey"]) == ("LINE", "train/loss")
    run = run_of(fake, SWEEP)
    assert run.tags["mlflow.note.content"] == "# what came out"
    assert [metric.value for metric in run.metrics["best/vrmse/01-20/diffusion"]] == [0.25]
    page = f"/#/experiments/{each.experiment}/runs?viewStateShareKey=lola-ffffffff-accuracy-against-cost"
    assert each.directions == [f"runs: open http://fake{page}"]


def test_a_second_run_and_another_server_show_the_same(tmp_path, fake, monkeypatch):
    concluded(tmp_path)
    concluded(tmp_path)
    (experiment,) = fake.experiments.values()
    assert len(experiment.tags) == 2
    other = FakeMlflow()
    monkeypatch.setattr("lola.storage.tracking.tracker.open_client", lambda uri: Unreliable(other))
    sync(tmp_path, lambda text: None)
    (copied,) = other.experiments.values()
    assert copied.tags == experiment.tags
    for server in (fake, other):
        (point,) = run_of(server, SWEEP).metrics["best/vrmse/01-20/diffusion"]
        assert point.value == 0.25
    assert run_of(other, SWEEP).tags["mlflow.note.content"] == "# what came out"


def test_a_server_that_takes_no_views_gets_everything_else(tmp_path, fake, monkeypatch):
    def refuse(*arguments):
        raise MlflowException("too long", error_code=INVALID_PARAMETER_VALUE)

    monkeypatch.setattr(fake, "set_experiment_tag", refuse)
    assert concluded(tmp_path).missing == ""
    assert run_of(fake, SWEEP).tags["mlflow.note.content"] == "# what came out"


def test_a_view_whose_bytes_are_corrupt_is_left_out(tmp_path, fake):
    each = Tracker(tmp_path, "euler")
    each.client.fail(1.0, 0)
    each.start_sweep("sweep", SWEEP, {}, VIEWS[:1])
    each.sweep_log.release()
    path = event_log_path(each.sweep_log.folder)
    assert '"condition"' in path.read_text()
    path.write_text(path.read_text().replace('"condition"', '"conditiom"'))
    other = tracker(tmp_path)
    other.finish_sweep(None, "FINISHED")
    assert other.missing == ""
    (experiment,) = fake.experiments.values()
    assert experiment.tags == {}


def test_progress_is_a_tag_and_no_metric(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    for done in (1, 7):
        event_log.metrics(done, {"progress/trajectories": done, "encode/states_per_second": 2.0})
    event_log.status("FINISHED")
    each.finish_sweep(None, "FINISHED")
    run = run_of(fake)
    assert run.tags["lola.progress/trajectories"] == "7"
    assert sorted(run.metrics) == ["encode/states_per_second", "train/loss"]
    assert steps(run, "encode/states_per_second") == [1, 7]


def test_how_far_a_training_is_costs_no_request_until_something_else_is_sent(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    each.copy_events()
    requests, log_batch = [], fake.log_batch
    fake.log_batch = lambda *arguments, **options: (
        requests.append(options) or log_batch(*arguments, **options)
    )
    confirmed = int(run_of(fake).tags[OFFSET])
    for step in (11, 12):
        event_log.progress(step)
        event_log.waiting("for a GPU")
        each.copy_events()
    assert not requests
    event_log.metrics(13, {"train/loss": 0.25})
    each.copy_events()
    assert int(run_of(fake).tags[OFFSET]) == end_offset(tmp_path / "stage") > confirmed
    assert steps(run_of(fake)) == [10, 13]
    event_log.progress(14)
    each.copy_events()
    each.flush()
    assert each.missing == ""
    assert int(run_of(fake).tags[OFFSET]) == end_offset(tmp_path / "stage")


def test_a_curve_has_its_points_once_and_those_of_reports_do_not_replace_them(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    for _ in range(2):  # a resumed stage repeats them
        event_log.curve("train/loss", [(12, 4.0), (16, float("nan")), (20, 2.0)])
        event_log.metrics(20, {"train/loss": 3.0, "valid/loss": 1.0})
        each.copy_events()
    event_log.status("FINISHED")
    each.finish_sweep(None, "FINISHED")
    run = run_of(fake)
    assert steps(run) == [10, 12, 16, 20]
    assert [metric.value for metric in run.metrics["train/loss"]][1::2] == [4.0, 2.0]
    assert steps(run, "valid/loss") == [20]


def test_a_model_has_pictures_of_its_evaluation(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    picture = tmp_path / "evaluations" / "one" / "reconstruction.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"picture")
    event_log.artifact(picture)
    each.finish_sweep(None, "FINISHED")
    assert run_of(fake).artifacts == {"reconstruction.png": b"picture"}
