"""A training of one worker in a task of Ray's: killed, resumed, and continued by Ray Train."""

import dataclasses
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import torch
from safetensors.torch import load_file
from stages import small_sweep

from lola.core.errors import DataError, LolaError
from lola.distributed.jobs.checkpoints import LIST_FILE, CheckpointStore
from lola.distributed.jobs.train import run_training
from lola.distributed.jobs.train_alone import train_by_one, train_here
from lola.distributed.jobs.train_workers import train_by_workers
from lola.distributed.jobs.worker import Setup, TrainingRun
from lola.storage.event_log import read_events
from lola.workflows.plan import SweepPlan

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's, of files that it leaves open
STEPS, EVERY = 6, 2


@pytest.fixture(scope="module")
def cluster(ray_folder):
    """Ray with two CPUs, whose workers see no GPU."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_TMPDIR", str(ray_folder))
        patched.setenv("RAY_AUTH_MODE", "disabled")
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def disturbed(setup: Callable[[], Setup], marker: Path, listed: Path, error: str) -> Setup:
    """A model whose process is killed, or which raises, in its fifth training step while a marker exists.

    By then a checkpoint is listed: they are stored while training goes on.
    """
    built, steps = setup(), []
    loss = built.model.loss

    def disturb(*arguments):
        steps.append(built.model.training)
        if sum(steps) == 5 and marker.exists():
            while not listed.exists():
                time.sleep(0.1)
            marker.unlink()
            if not error:
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"data": DataError("bad.hdf5 is bad"), "other": ValueError("a fault")}[error]
        return loss(*arguments)

    built.model.loss = disturb
    return built


@pytest.fixture
def make(tmp_path, well):
    """Returns a run of a small autoencoder in a storage root of its own, disturbed once if asked to be."""

    def make(name: str, error: str | None = None, **changes) -> TrainingRun:
        plan = SweepPlan(small_sweep(), tmp_path / name, well)
        stage = plan.autoencoder(16)
        (run,) = (step.run.args[0] for step in plan.steps if step.stage.fingerprint == stage.fingerprint)
        short = {"steps": STEPS, "report_every": EVERY, "batch_size": 2, "valid_samples": 2, "warmup": 0}
        training, setup = run.training.replace(**short, **changes), run.setup
        stage.folder.mkdir(parents=True)
        if error is not None:
            marker = tmp_path / f"{name}.marker"
            marker.touch()
            listed = stage.folder / "checkpoints" / LIST_FILE
            setup = functools.partial(disturbed, setup, marker, listed, error)
        return dataclasses.replace(run, training=training, setup=setup)

    return make


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    """The weights of a run's last checkpoint, which must be that of its end."""
    last = CheckpointStore.of(run.stage, run.training).manager(1).latest_checkpoint_result
    assert last.metrics["step"] == STEPS
    return load_file(Path(last.checkpoint.path) / "model.safetensors")


def check_alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Two processes may round sums differently."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-7)


def notices(run: TrainingRun) -> list[str]:
    return [event["text"] for _, event in read_events(run.stage.folder) if event["kind"] == "notice"]


def reported_steps(run: TrainingRun) -> list[int]:
    return [event["step"] for _, event in read_events(run.stage.folder) if event["kind"] == "metrics"]


@pytest.mark.parametrize("error", ["", pytest.param("other", marks=pytest.mark.long)])
def test_a_worker_that_fails_goes_on_from_its_last_checkpoint(cluster, make, error):
    expected, run = make("expected"), make("killed", error)
    train_here(expected)
    run_training(run)
    assert run.stage.finished
    (line,) = notices(run)
    assert line.startswith("its worker failed (")
    assert line.endswith("training starts again")
    assert ("a fault" in line) == (error == "other")
    assert sorted(set(reported_steps(run))) == [2, 4, 6]
    check_alike(load_file(run.stage.folder / "model.safetensors"), weights(expected))


@pytest.mark.long
@pytest.mark.parametrize(
    ("first", "then"), [(train_by_one, train_by_workers), (train_by_workers, train_by_one)]
)
def test_what_one_way_began_the_other_ends_with_equal_numbers(cluster, make, first, then):
    expected, run = make("expected"), make("begun", "", max_failures=0)
    train_here(expected)
    with pytest.raises(LolaError, match=r"training euler-autoencoder.* failed: "):
        first(run)
    assert reported_steps(run) in ([2], [2, 4])
    then(run)
    assert sorted(set(reported_steps(run))) == [2, 4, 6]
    check_alike(weights(run), weights(expected))


def test_an_error_of_the_data_is_not_tried_again(cluster, make):
    run = make("bad", "data")
    with pytest.raises(DataError, match=r"^bad\.hdf5 is bad$"):
        run_training(run)
    assert notices(run) == []
