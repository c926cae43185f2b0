"""What caused an error of Ray's: the errors that it carries, by their types, and one line on the failure."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from lola.core.errors import LolaError
from lola.core.filesystem import describe_os_error
from lola.storage.remote import first_line

E = TypeVar("E", bound=BaseException)
CARRIED = ("cause", "controller_failure", "_base_exc", "__cause__", "__context__")
"""Attributes of errors of Python's, of Ray's tasks and of Ray Train's, in which another error is."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it carries, each once, the nearest first."""
    seen: set[int] = set()
    left = [error]
    while left:
        found = left.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        carried = [getattr(found, name, None) for name in CARRIED]
        carried += list((getattr(found, "worker_failures", None) or {}).values())
        left += [other for other in carried if isinstance(other, BaseException)]


def cause_of(error: BaseException, kind: type[E]) -> E | None:
    """The nearest cause of a type, if there is one."""
    for found in causes(error):
        # What `ray.get` raises is of the type of its cause as well, but its text is a traceback
        wraps = isinstance(found, RayTaskError) and not issubclass(kind, RayError)
        if isinstance(found, kind) and not wraps:
            return found
    return None


def failure_reason(error: BaseException) -> str:
    """Why a task, a training or a stage failed, in one line: the first worker's innermost error."""
    if cause_of(error, OutOfMemoryError):
        return "a node ran out of memory; take fewer at once (--concurrency), smaller batches or larger nodes"
    error = next(iter((getattr(error, "worker_failures", None) or {}).values()), error)
    for name in ("_base_exc", "cause"):
        inner = getattr(error, name, None)
        error = inner if isinstance(inner, BaseException) else error
    if isinstance(error, LolaError):
        return first_line(error)  # Ray Data appends lines about its retries
    last = (str(error).strip().splitlines() or [""])[-1]
    return describe_os_error(error) or f"{type(error).__name__}: {last}"


@contextlib.contextmanager
def unwrap_errors() -> Iterator[None]:
    """Raise the `LolaError` that a task failed with.

    Raises:
        LolaError: A task failed with one.
    """
    try:
        yield
    except RayError as error:
        own = cause_of(error, LolaError)
        if own is None:
            raise
        own.args = (first_line(own),)  # Ray Data appends lines about its retries
        raise own from error
