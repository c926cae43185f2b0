"""Compiled functions that do without where nothing can compile them."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException


class Compiled:
    """A function of tensors, compiled anew for each of their shapes and types, else as it is.

    Where compiling fails, as it does on machines without a C++ compiler, it warns once and goes on without.

    Arguments:
        function: What is compiled.
        graphs: Whether GPUs replay it as one CUDA graph, which spares the launch of every kernel. What it
            returned before may then be overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Any], graphs: bool = False) -> None:
        self.function, self.graphs = function, graphs
        mode = "reduce-overhead" if graphs else "default"
        self.compiled: Callable[..., Any] | None = torch.compile(function, dynamic=False, mode=mode)

    def __call__(self, *inputs: Any) -> Any:
        """The function's value."""
        if self.compiled is None:
            return self.function(*inputs)
        try:
            if self.graphs:
                torch.compiler.cudagraph_mark_step_begin()
            return self.compiled(*inputs)
        except TorchDynamoException as error:
            self.compiled = None
            cause = getattr(error, "inner_exception", error)
            reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
            warnings.warn(f"networks are not compiled, since that failed: {reason}", stacklevel=2)
            return self.function(*inputs)


class _Kept(dict[tuple[str, bool], Compiled]):
    """What was compiled for an object; copies of the object start without."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Kept":
        return _Kept()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Kept, ()


def compiled(function: Callable[..., Any], graphs: bool = False) -> Compiled:
    """A function compiled once for all who ask for it.

    That of a model, or of a method of it, lives as long as the model.
    """
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    if owner is None:
        return _compiled(function, graphs)
    kept = vars(owner).setdefault("_compiled_functions", _Kept())
    name = "" if owner is function else function.__name__
    if (name, graphs) not in kept:
        kept[name, graphs] = Compiled(function, graphs)
    return kept[name, graphs]


@functools.cache
def _compiled(function: Callable[..., Any], graphs: bool) -> Compiled:
    """A function of a module; there are few."""
    return Compiled(function, graphs)
