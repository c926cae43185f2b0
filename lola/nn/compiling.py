"""Compiled networks: block by block in training, and functions that run uncompiled where compiling fails."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lola.nn.recompute import Block

RECOMPILES = 128  # of one block's code: shapes of all levels, with and without gradients, of all batches


def compile_blocks(network: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile a network for training in place: each block by itself, or the whole where it has none.

    Blocks of equal shapes share what was compiled for one of them, so that the first step comes soon, and
    gradients are complete block by block, so that workers exchange them while others are still computed.
    """
    import torch._dynamo  # here, since it takes seconds, and most processes compile nothing

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILES)
    blocks: list[nn.Module] = [module for module in network.modules() if isinstance(module, Block)]
    for region in blocks or [network]:
        region.compile(dynamic=False, backend=backend)


class Compiled:
    """A function of tensors, compiled for each of their shapes and dtypes.

    Where compiling fails, as on machines without a C++ compiler, it warns once and calls the function itself.

    Arguments:
        function: The function.
        graphs: Whether GPUs replay it as one CUDA graph, which saves launching every kernel. The next call
            may then overwrite what this one returned.
    """

    def __init__(self, function: Callable[..., Any], graphs: bool = False) -> None:
        self.function, self.graphs = function, graphs
        mode = "reduce-overhead" if graphs else "default"
        self.compiled: Callable[..., Any] | None = torch.compile(function, dynamic=False, mode=mode)

    def __call__(self, *inputs: Any) -> Any:
        if self.compiled is None:
            return self.function(*inputs)
        from torch._dynamo.exc import TorchDynamoException  # here, as above

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


class _Cache(dict[tuple[str, bool], Compiled]):
    """The compiled methods of an object, by name; copies of the object start with none."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Cache":
        return _Cache()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Cache, ()


def compiled(function: Callable[..., Any], graphs: bool = False) -> Compiled:
    """The compiled function, the same object for every caller.

    That of a module, or of a method of it, lives as long as the module.
    """
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    if owner is None:
        return _compiled(function, graphs)
    cache = vars(owner).setdefault("_compiled_functions", _Cache())
    name = "" if owner is function else function.__name__
    if (name, graphs) not in cache:
        cache[name, graphs] = Compiled(function, graphs)
    return cache[name, graphs]


@functools.cache
def _compiled(function: Callable[..., Any], graphs: bool) -> Compiled:
    return Compiled(function, graphs)


def keeping(function: Compiled) -> Callable[..., Any]:
    """A function of one result, which stays as it is when the function is called again."""
    return (lambda *inputs: function(*inputs).clone()) if function.graphs else function
