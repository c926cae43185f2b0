"""What a training step of a network costs, counted on tensors without memory.

A model's loss and its gradient run on torch's meta device, where tensors have shapes and types alone. Torch's
flop counter counts 2 operations per multiplication and addition of convolutions, products of matrices and
attention, forwards and backwards; it misses element-wise operations, normalisation and the optimiser.
Activations are the storages that autograd saves for the backward pass, parameters apart.

Both are affine in the samples `n` of a batch, `fixed + n per_sample`: position embeddings and the casts of
weights to bfloat16 do not grow with it. Counting batches of two sizes gives both numbers, large enough for a
share of the samples to be a whole number.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward, saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.nn.recompute import Block
from lola.training.precision import Precision

META = torch.device("meta")
SAMPLES = 8  # of the smaller batch that is counted


@dataclasses.dataclass(frozen=True)
class Affine:
    """A number that grows with the samples of a batch: `fixed + n per_sample`."""

    fixed: float
    per_sample: float

    def at(self, samples: float) -> float:
        return self.fixed + samples * self.per_sample


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a training step costs."""

    shapes: tuple[tuple[int, ...], ...]  # the shape of every parameter
    flops: Affine  # operations, forwards and backwards
    activations: Affine  # bytes that the forward pass leaves for the backward pass
    # the same when every block keeps its inputs alone, one block at a time being recomputed
    recomputed: Affine

    @property
    def parameters(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes)


def count_step(
    build: Callable[[], nn.Module], states: tuple[int, ...], parameters: int, precision: Precision
) -> Counts:
    """Count a training step of a model.

    Arguments:
        build: Builds the model, which has `loss(batch, generator)`.
        states: The shape `(C, L, *grid)` of a sample.
        parameters: The length `P` of a sample's parameters.
        precision: The type of the network's arithmetic; weights are float32.
    """
    with META:
        model = build()
    once, twice = (_step(model, n, states, parameters, precision) for n in (SAMPLES, 2 * SAMPLES))
    flops, activations, recomputed = (
        Affine(2 * one - two, (two - one) / SAMPLES) for one, two in zip(once, twice, strict=True)
    )
    return Counts(tuple(tuple(p.shape) for p in model.parameters()), flops, activations, recomputed)


@torch.no_grad()
def check_on_meta_device(build: Callable[[], nn.Module], states: tuple[int, ...], parameters: int) -> int:
    """Compute a model's loss on one sample without memory or arithmetic; return its number of parameters.

    Arguments are as for `count_step`.
    """
    with META:
        model = build()
    cast(Any, model).loss(_batch(1, states, parameters), _Shapes(1))
    return sum(weight.numel() for weight in model.parameters())


def _step(
    model: nn.Module, samples: int, states: tuple[int, ...], parameters: int, precision: Precision
) -> tuple[int, int, int]:
    """Operations, saved bytes and saved bytes with recomputed blocks, of one batch."""
    batch = _batch(samples, states, parameters)
    saved = _Saved(model)
    with _Operations() as counter, _Autocast(precision):
        with saved.watch():
            loss, _ = cast(Any, model).loss(batch, _Shapes(samples))
        # As `loss.backward()`, which would suspend the casts where windows are computed again
        engine = {"allow_unreachable": True, "accumulate_grad": True}
        _engine_run_backward((loss,), (torch.ones_like(loss),), False, False, (), **engine)
    model.zero_grad(set_to_none=True)
    return counter.total, saved.bytes, saved.recomputed


def _batch(samples: int, states: tuple[int, ...], parameters: int) -> Batch:
    return Batch(
        states=torch.empty(samples, *states, device=META),
        parameters=torch.empty(samples, parameters, device=META),
    )


@dataclasses.dataclass(frozen=True)
class _CachedOutputs:
    """The outputs of an operation for inputs of some shapes, and its operation count."""

    # shape, strides and type of each, None for what is not a tensor; None if they share memory with inputs,
    # so that the operation is not cached
    outputs: tuple[tuple[Any, ...] | None, ...] | None
    single: bool  # whether the output is a single tensor instead of a tuple
    flops: int

    def build(self) -> Any:
        assert self.outputs is not None
        made = [
            torch.empty_strided(output[0], output[1], dtype=output[2], device=META) if output else None
            for output in self.outputs
        ]
        return made[0] if self.single else tuple(made)


class _Operations(TorchDispatchMode):
    """Counts the operations of everything computed in its context, by torch's formulas.

    Networks repeat their blocks, and torch computes the shape of a result in Python, which is slow: the
    outputs for inputs of the same shapes are cached.
    """

    cache: ClassVar[dict[Any, _CachedOutputs]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        key = (func, _cache_key(args), _cache_key(tuple(kwargs.items())))
        made = self.cache.get(key)
        if made is not None and made.outputs is not None:
            self.total += made.flops
            return made.build()
        result = func(*args, **kwargs)
        if made is None:
            made = self.cache[key] = _describe(func, args, kwargs, result)
        self.total += made.flops
        return result


def _cache_key(value: Any) -> Any:
    """The properties of an operation's inputs that determine its outputs, as a cache key."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device.type
    if isinstance(value, (list, tuple)):
        return tuple(map(_cache_key, value))
    return type(value), value


def _describe(func: Any, args: Any, kwargs: Any, result: Any) -> _CachedOutputs:
    """A description from which the result of an operation can be created again."""
    formula = flop_registry.get(func._overloadpacket)
    flops = formula(*args, **kwargs, out_val=result) if formula else 0
    single = isinstance(result, Tensor)
    outputs = (result,) if single else tuple(result) if isinstance(result, (list, tuple)) else ()
    inputs = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
    new = (
        not func._schema.is_mutable
        and bool(outputs)
        and all(x is None or _is_new(x, inputs) for x in outputs)
        and (single or isinstance(result, tuple))
    )
    if not new:
        return _CachedOutputs(None, single, flops)
    described = tuple(None if x is None else (x.shape, x.stride(), x.dtype) for x in outputs)
    return _CachedOutputs(described, single, flops)


def _is_new(output: Any, inputs: set[int]) -> bool:
    """Whether an output is a tensor without memory that no input is a view of."""
    return isinstance(output, Tensor) and output.device == META and _storage(output) not in inputs


class _Shapes(SampleGenerator):
    """Random numbers without values, on the meta device."""

    def __init__(self, samples: int) -> None:
        super().__init__([(i,) for i in range(samples)], META)

    def normal(self, *shape: int) -> Tensor:
        return torch.empty(len(self), *shape, device=META)

    def rows(self, probability: float) -> Tensor:
        return torch.empty(max(1, round(probability * len(self))), dtype=torch.int64, device=META)


class _Autocast(TorchFunctionMode):
    """What automatic mixed precision does on a GPU, for the meta device, which has none of its own.

    Linear maps, convolutions and attention are computed in bfloat16, normalisation in float32, the rest in
    the type at hand. Attention is the fused kind, which keeps no matrix of weights; dropout keeps bytes.
    """

    HALF = (F.linear, F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d, torch.matmul)
    FULL = (F.layer_norm, F.rms_norm, F.group_norm, torch.layer_norm, torch.rms_norm, torch.group_norm)

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.half = torch.bfloat16 if precision == "bfloat16" else torch.float32

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k, v = (part.to(self.half) for part in args[:3])
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func in self.HALF:
            args, kwargs = self._cast(self.half, args, kwargs)
        elif func in self.FULL:
            args, kwargs = self._cast(torch.float32, args, kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return torch.native_dropout(x, p, True)[0] if training and p else x

    @staticmethod
    def _cast(dtype: torch.dtype, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
        def cast_one(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        return [cast_one(value) for value in args], {key: cast_one(value) for key, value in kwargs.items()}


class _Saved:
    """The storages that autograd saves of a model, parameters apart, and the block that saved each."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters = {_storage(p) for p in model.parameters()}
        self.tensors: dict[int, Tensor] = {}  # kept alive, so that no address is used twice
        self.owners: dict[int, nn.Module | None] = {}
        self.inputs: dict[int, Tensor] = {}
        self.current: nn.Module | None = None

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Record what is saved within the context."""
        handles = []
        for block in self.model.modules():
            if isinstance(block, Block):
                handles.append(block.register_forward_pre_hook(self._enter))
                handles.append(block.register_forward_hook(self._leave))
        with saved_tensors_hooks(self._pack, lambda tensor: tensor):
            yield
        for handle in handles:
            handle.remove()

    def _enter(self, block: nn.Module, args: tuple[Any, ...]) -> None:
        self.current = block
        self.inputs |= {_storage(x): x for x in args if isinstance(x, Tensor)}

    def _leave(self, block: nn.Module, args: Any, output: Any) -> None:
        self.current = None

    def _pack(self, tensor: Tensor) -> Tensor:
        key = _storage(tensor)
        if key not in self.parameters:
            self.tensors[key] = tensor
            owner = self.owners.setdefault(key, self.current)
            if owner is not self.current:
                self.owners[key] = None
        return tensor

    @property
    def bytes(self) -> int:
        """Bytes of everything saved."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self.tensors.values())

    @property
    def recomputed(self) -> int:
        """Bytes of what is saved outside blocks, of their inputs, and of the largest block."""
        inside: collections.Counter[nn.Module] = collections.Counter()
        kept = dict(self.inputs)
        for key, tensor in self.tensors.items():
            owner = self.owners[key]
            if owner is None:
                kept[key] = tensor
            elif key not in self.inputs:
                inside[owner] += tensor.untyped_storage().nbytes()
        outside = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        return outside + max(inside.values(), default=0)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
