"""The errors that Ray's errors carry are found by their types, wherever they are."""

import errno

import pytest
from ray.data import DataContext
from ray.data._internal.planner.plan_udf_map_op import _try_wrap_udf_exception
from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from lola.core.errors import DataError, LolaError
from lola.distributed.cluster.causes import cause_of, causes, failure_reason, unwrap_errors
from lola.distributed.cluster.connection import configure_ray_data

OWN = DataError("a.hdf5 is corrupt; simulate it again")


def after(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OWN,
        RayTaskError("f", "", OWN),
        RayTaskError("f", "", OWN).as_instanceof_cause(),
        after(RuntimeError("a bug?"), OWN),
        WorkerGroupError("1 worker failed", {3: RayTaskError("f", "", OWN)}),
        ControllerError(OWN),
        after(
            LolaError("training failed"), WorkerGroupError("1 worker failed", {0: after(ValueError(), OWN)})
        ),
    ],
)
def test_an_error_of_ours_is_found(error):
    assert str(cause_of(error, DataError)) == str(OWN)
    assert cause_of(error, OutOfMemoryError) is None


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (OWN, str(OWN)),
        (ValueError("shape\nof x"), "ValueError: of x"),
        (
            OSError(errno.ENOSPC, "full", "a"),
            "cannot use a (No space left on device); free some space or give",
        ),
        (OutOfMemoryError("low on memory"), "a node ran out of memory; "),
    ],
)
def test_a_failure_has_one_line_whatever_carries_its_cause(cause, reason):
    task = RayTaskError("f", "", cause)
    carriers = (cause, task, task.as_instanceof_cause(), WorkerGroupError("1 worker failed", {3: task}))
    assert all(failure_reason(error).startswith(reason) for error in carriers)


def test_errors_that_carry_each_other_end():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__context__ = two, one
    assert list(causes(one)) == [one, two]


def test_a_task_that_failed_with_ours_raises_it():
    failed = RayTaskError("f", "lola.core.errors.StorageError: not this text", OWN)
    with pytest.raises(DataError, match="simulate it again"), unwrap_errors():
        raise failed


def test_lines_that_ray_data_appends_are_left_out():
    noted = DataError(
        f"{OWN}\nFailed to apply UDF transform after 1/1 attempts.\nTo change retry attempts, ..."
    )
    with pytest.raises(DataError, match=f"^{OWN}$"), unwrap_errors():
        raise RayTaskError("f", "", noted).as_instanceof_cause()


def test_the_text_of_others_is_not():
    text = "lola.core.errors.StorageError: the disk is full"
    with pytest.raises(RayTaskError), unwrap_errors():
        raise RayTaskError("f", text, ValueError("a bug that quotes an error"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_data_raises_the_errors_of_tasks_as_they_are(monkeypatch):
    monkeypatch.setattr(DataContext.get_current(), "raise_original_map_exception", False)
    configure_ray_data()
    with pytest.raises(DataError, match="simulate it again"):
        _try_wrap_udf_exception(OWN)
