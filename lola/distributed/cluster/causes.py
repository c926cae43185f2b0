"""What caused an error of Ray's: the errors that it carries, by their types."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from ray.exceptions import RayError, RayTaskError

from lola.core.errors import LolaError

E = TypeVar("E", bound=BaseException)
CARRIED = ("cause", "controller_failure", "_base_exc", "__cause__", "__context__")
"""Attributes of errors of Python's, of Ray's tasks and of Ray Train's, in which another error is."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it carries, each once, the nearest first."""
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        carried = [getattr(each, name, None) for name in CARRIED]
        carried += list((getattr(each, "worker_failures", None) or {}).values())
        left += [other for other in carried if isinstance(other, BaseException)]


def cause_of(error: BaseException, kind: type[E]) -> E | None:
    """The nearest cause of a type, if there is one."""
    for each in causes(error):
        # What `ray.get` raises is of the type of its cause as well, but its text is a traceback
        wraps = isinstance(each, RayTaskError) and not issubclass(kind, RayError)
        if isinstance(each, kind) and not wraps:
            return each
    return None


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
        own.args = (str(own).partition("\n")[0],)  # Ray Data appends lines about its retries
        raise own from error
