"""The errors that Ray's errors carry are found by their types, wherever they are."""

import pytest
from ray.exceptions import OutOfMemoryError, RayTaskError, UserCodeException
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from lola.core.errors import DataError, LolaError, StorageError
from lola.distributed.cluster.causes import cause_of, causes, unwrap_errors

OWN = DataError("a.hdf5 is torn; simulate it again")


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


def test_errors_that_carry_each_other_end():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__context__ = two, one
    assert list(causes(one)) == [one, two]


def test_a_task_that_failed_with_ours_raises_it():
    failed = RayTaskError("f", "lola.core.errors.StorageError: not this text", OWN)
    with pytest.raises(DataError, match="simulate it again"), unwrap_errors():
        raise failed


def test_what_ray_data_carries_as_text_alone_is_read():
    text = "Traceback\nlola.core.errors.StorageError: the disk is full; free space\n\nThe above exception"
    with pytest.raises(StorageError, match=r"^the disk is full; free space$"), unwrap_errors():
        raise RayTaskError("f", text, UserCodeException("failed"))


def test_the_text_of_others_is_not():
    text = "lola.core.errors.StorageError: the disk is full"
    with pytest.raises(RayTaskError), unwrap_errors():
        raise RayTaskError("f", text, ValueError("a bug that quotes an error"))
