"""A fake GPU: tensors hold their values on the CPU and report that they are on `cuda:0`.

Within `PretendedGPU` torch's functions take and return such tensors wherever `cuda` is asked for, so that
whole training steps and rollouts run, with true values, on a machine without a GPU. An operation that
would fail on a GPU because its tensors are on two devices raises `MixedDevices`, and `waits` lists where the
host would synchronise with the GPU.

What it cannot see: kernels (what CUDA does not implement, or computes otherwise), streams, memory, automatic
mixed precision, which it leaves alone, compiled code and CUDA graphs; functions that make a tensor in C++
within a backward pass; and generators of random numbers on a GPU, which it has none of. Of tensors without
axes it is stricter than CUDA: on the CPU they may meet tensors of the GPU in arithmetic alone.
"""

import contextlib
import itertools
import traceback
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
HOST = torch.device("cpu")
GROUPING = "_group_tensors_by_device_and_dtype"
LOLA = str(Path(__file__).parents[2] / "lola")
aten = torch.ops.aten

# What lets a tensor without axes stay on the CPU: arithmetic, comparison, choice and filling
SCALARS = {
    *("add", "sub", "rsub", "mul", "div", "pow", "remainder", "fmod", "floor_divide", "atan2", "hypot"),
    *("maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "where", "fill", "copy", "masked_fill"),
    *("logical_and", "logical_or", "bitwise_and", "bitwise_or", "bitwise_xor"),
}
CROSSING = {"copy", "index", "index_put"}  # what takes tensors from the CPU, which the host waits for
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_linalg_check_errors"}


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices."""


class OnGPU(Tensor):
    """A tensor that reports that it is on the GPU; `inner` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        assert type(inner) is Tensor, type(inner)
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=HOST,
        )
        made.inner = inner
        return made

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def data_ptr(self):
        return self.inner.data_ptr()

    def __repr__(self):
        return f"OnGPU({self.inner})"

    def __deepcopy__(self, memo):
        copied = OnGPU(self.inner.detach().clone()).requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        check(func, args, kwargs)
        inner_args, inner_kwargs = tree_map(unwrap, (args, kwargs))
        made = tree_map(wrap, func(*inner_args, **inner_kwargs))
        return return_and_correct_aliasing(func, args, kwargs, made)


def unwrap(x):
    return x.inner if isinstance(x, OnGPU) else x


def wrap(x):
    return OnGPU(x) if isinstance(x, Tensor) and not isinstance(x, OnGPU) else x


def is_on_gpu(x):
    """Whether a tensor is on the GPU."""
    return isinstance(x, OnGPU)


def check(func, args, kwargs):
    """Raise unless an operation's tensors are on valid devices; record whether the host would wait."""
    name = func._overloadpacket.__name__.rstrip("_")
    cpu_tensors = [
        x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and not isinstance(x, OnGPU)
    ]
    wrong = [x for x in cpu_tensors if (x.ndim or name not in SCALARS) and not no_tangent(x)]
    if wrong and name not in CROSSING:
        shapes = ", ".join(str(tuple(x.shape)) for x in wrong)
        raise MixedDevices(f"{func}: tensors on {GPU} meet tensors of shape {shapes} on the CPU")
    masks = name in ("index", "index_put") and any(
        isinstance(x, Tensor) and x.dtype == torch.bool for x in args[1]
    )
    if name in WAITING or masks or wrong:
        PretendedGPU.wait(str(func))


def no_tangent(x):
    """Whether a tensor may be the derivative of a constant, which C++ makes of zeros on the CPU."""
    return forward_ad._current_level >= 0 and (x.is_meta or not x.any())


def derivative(function, primals, tangents):
    """What `torch.func.jvp` computes, which knows no such tensors."""
    with forward_ad.dual_level():
        value = function(*itertools.starmap(forward_ad.make_dual, zip(primals, tangents, strict=True)))
        primal, tangent = forward_ad.unpack_dual(value)
        return primal, torch.zeros_like(primal) if tangent is None else tangent


class PretendedGPU(TorchFunctionMode):
    """A context in which `cuda` is the pretended GPU.

    `waits` holds the lines of the library at which the host would wait for the GPU, in order.
    """

    active: "PretendedGPU | None" = None

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []
        self.pinned: dict[int, Tensor] = {}

    def __enter__(self):
        self.patches = contextlib.ExitStack()
        self.patches.enter_context(
            mock.patch.object(clip_grad, GROUPING, self.group(getattr(clip_grad, GROUPING)))
        )
        self.patches.enter_context(mock.patch.object(torch.func, "jvp", derivative))
        self.patches.enter_context(
            mock.patch.object(torch.cuda, "synchronize", side_effect=lambda device: self.wait("clock"))
        )
        # Modules that move must take the moved parameters themselves
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self.patches.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        self.patches.enter_context(mock.patch.object(Tensor, "pin_memory", lambda x: self.pin(x)))
        self.patches.enter_context(mock.patch.object(PretendedGPU, "active", self))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.patches.close()

    @classmethod
    def wait(cls, why):
        """Record that the host waits here."""
        if cls.active is None:
            return
        frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(LOLA)]
        place = (
            f"{frames[-1].filename.removeprefix(LOLA + '/')}:{frames[-1].lineno}" if frames else "elsewhere"
        )
        cls.active.waits.append(f"{place} {why}")

    @staticmethod
    def group(function):
        """Group tensors by the device that they report, which C++ does not know."""

        def grouped(tensors, *args):
            groups = function(tensors, *args).items()
            return {
                (GPU if is_on_gpu(found[0][0][0]) else device, dtype): found
                for (device, dtype), found in groups
            }

        return grouped

    def pin(self, x):
        copied = x.clone()
        self.pinned[copied.untyped_storage().data_ptr()] = copied  # kept, so that no address is used twice
        return copied

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in PROPERTIES:
            return PROPERTIES[func](args[0], func)
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self.to(func, *args, **kwargs)
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__) and is_on_gpu(args[0]):
            if func is not Tensor.tolist:
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            self.wait("tolist")
            return args[0].detach().inner.tolist()
        device = kwargs.get("device")
        if func is Tensor.new_tensor and device is None and is_on_gpu(args[0]):
            device = GPU
        if device is None or torch.device(device).type != "cuda":
            return func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
            self.wait(func.__name__)
        return wrap(func(*tree_map(unwrap, args), **(kwargs | {"device": HOST})))

    def to(self, func, x, *args, **kwargs):
        """Move a tensor, or change its type."""
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        if func is not Tensor.to:
            device, args = HOST if func is Tensor.cpu else GPU, ()
        for value in args:
            if isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, Tensor):
                device, dtype = GPU if is_on_gpu(value) else HOST, value.dtype
            elif isinstance(value, str | torch.device):
                device = value
        kind = None if device is None else torch.device(device).type
        options = {key: value for key, value in kwargs.items() if key in ("copy", "memory_format")}
        cast = x if dtype is None and not options else Tensor.to(x, dtype or x.dtype, **options)
        if kind is None or (kind == "cuda") == is_on_gpu(x):
            return cast
        if kind not in ("cpu", "cuda"):
            return Tensor.to(x, device)
        assert not x.requires_grad or not torch.is_grad_enabled(), (
            "nothing that is differentiated changes device"
        )
        cast = cast.detach()
        if kind == "cpu":
            self.wait("to the host")
            return cast.inner.clone()
        if not (kwargs.get("non_blocking") and x.untyped_storage().data_ptr() in self.pinned):
            self.wait("to the GPU, from memory that is not page-locked")
        return OnGPU(cast.clone())


PROPERTIES = {
    Tensor.device.__get__: lambda x, get: GPU if is_on_gpu(x) else get(x),
    Tensor.is_cuda.__get__: lambda x, get: is_on_gpu(x),
    Tensor.is_cpu.__get__: lambda x, get: not is_on_gpu(x) and get(x),
}
