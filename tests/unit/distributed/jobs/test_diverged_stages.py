"""The training of a sweep's stage that meets values which are not finite, here and without a cluster."""

import shutil

import h5py
import pytest

from lola.core.errors import DataError, DivergedError
from lola.training.loop import train
from lola.workflows.plan import SweepPlan


@pytest.fixture
def data(tmp_path, well):
    """A copy of the datasets that may be damaged."""
    return shutil.copytree(well, tmp_path / "data")


def damage(data, split, value):
    """Put a value into one trajectory, which no header shows; returns the file's name."""
    path = next(data.glob(f"*openBC/data/{split}/*.hdf5"))
    with h5py.File(path, "r+") as file:
        file["t0_fields/density"][1, 7, 2, 3] = value
    return path.name


def train_autoencoder(sweep, root, data, rate=1e-3):
    """Two steps of two samples, as a worker does them, and a validation on all states."""
    training = sweep.autoencoder_training
    optimizer = training.optimizer.replace(name="adam", learning_rate=rate)
    training = training.replace(
        steps=2, report_every=2, batch_size=2, valid_samples=84, warmup=0, optimizer=optimizer
    )
    plan = SweepPlan(sweep.replace(autoencoder_training=training), root, data)
    step = next(step for trial in plan.trials for step in trial.steps if step.stage.kind == "autoencoders")
    (run,) = step.run.args
    setup = run.setup()
    train(setup.model, run.training, setup.training, setup.validation, report=lambda *each: None)


def test_a_rate_that_is_too_high_is_named(sweep, tmp_path, data):
    with pytest.raises(DivergedError, match=r"model has diverged; lower its learning rate \(1e\+30\)"):
        train_autoencoder(sweep, tmp_path, data, rate=1e30)


def test_a_value_that_is_not_finite_is_traced_to_its_file(sweep, tmp_path, data):
    name = damage(data, "valid", float("nan"))
    with pytest.raises(DataError, match=f"{name}#1 .*density is not finite"):
        train_autoencoder(sweep, tmp_path, data)
