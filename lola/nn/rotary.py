r"""Rotary positions of queries and keys, with their normalisation.

With `q` the `d` features of a head, in pairs that are read as complex numbers, `p_n` the integer coordinates
of token `n` and `theta` the angles per step along each axis:

    r = 1 / sqrt(|q|^2 / d + eps),  y_n = r q_n exp(i phi_n),  phi_n = p_n theta

A rotation leaves lengths unchanged. With `g` the gradient of `y`, `<g, y>` the real inner product over the
features of a head, and `*` the complex conjugate:

    dq_n = r (g_n - y_n <g_n, y_n> / d) exp(-i phi_n),  d exp(i phi_n) = exp(i phi_n) sum_{batch} g_n y_n*
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-5


def rotations(coordinates: Tensor, theta: Tensor, heads: int) -> Tensor:
    """The rotation exp(i phi) of every token.

    Arguments:
        coordinates: Positions of tokens, with shape `(N, axes)`.
        theta: Radians per step, with shape `(axes, heads * d / 2)`.
        heads: The number of heads.

    Returns:
        Cosines and sines with shape `(N, heads, d / 2, 2)`, in float32 or better.
    """
    # Not a matrix product, which autocast would compute in half precision
    theta = theta.to(torch.promote_types(theta.dtype, torch.float32))
    angles = (coordinates[..., None] * theta).sum(dim=-2)
    return torch.stack((angles.cos(), angles.sin()), dim=-1).unflatten(-2, (heads, -1))


def normalise(x: Tensor) -> Tensor:
    """Divide by the root mean square over the last axis."""
    return F.rms_norm(x, x.shape[-1:], eps=EPS)


def rotate(x: Tensor, rotation: Tensor, norm: bool = False) -> Tensor:
    """Rotate consecutive pairs of features, after their normalisation if `norm`.

    Arguments:
        x: Features of shape `(B, N, parts, heads, d)`.
        rotation: Cosines and sines, with shape `(N, heads, d / 2, 2)`.
        norm: Whether each head's features are divided by their root mean square first.

    Returns:
        Features of the shape and dtype of `x`.
    """
    if torch.compiler.is_compiling():
        return _rotate_real(normalise(x) if norm else x, rotation)
    if torch.is_grad_enabled():
        return _Rotate.apply(x, rotation, norm)
    return _rotate(x, rotation, norm)[0]


def _rotate_real(x: Tensor, rotation: Tensor) -> Tensor:
    """The same for compilers, which fuse real operations and do not support complex ones."""
    cos, sin = rotation[:, None].to(x.dtype).unbind(-1)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


def _rotate(x: Tensor, rotation: Tensor, norm: bool) -> tuple[Tensor, Tensor | None]:
    """`y` and `r`."""
    wide = x.to(rotation.dtype)
    y = _real(_complex(wide) * torch.view_as_complex(rotation)[:, None])
    scale = None
    if norm:
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
        y.mul_(scale)
    return y.to(x.dtype), scale


class _Rotate(torch.autograd.Function):
    """The formulas above, in as few passes over memory as stock operators need."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rotation: Tensor, norm: bool) -> Tensor:
        y, scale = _rotate(x, rotation, norm)
        ctx.save_for_backward(y, rotation, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        y, rotation, scale = ctx.saved_tensors
        dtype, g, y = g.dtype, g.to(rotation.dtype), y.to(rotation.dtype)
        dx = drotation = None
        product = None
        if ctx.needs_input_grad[1]:
            product = torch.conj_physical(_complex(y)).mul_(_complex(g))
            # Sums of complex numbers, and over two axes that are apart, are many times slower
            total = torch.view_as_complex(torch.view_as_real(product).sum(dim=0).sum(dim=1))
            drotation = torch.view_as_real(total * torch.view_as_complex(rotation))
        if ctx.needs_input_grad[0]:
            if scale is not None:
                along = (g * y) if product is None else torch.view_as_real(product)[..., 0]
                g = g - y * along.sum(dim=-1, keepdim=True).div_(y.shape[-1])
            dx = _real(_complex(g) * torch.conj_physical(torch.view_as_complex(rotation))[:, None])
            if scale is not None:
                dx.mul_(scale)
            dx = dx.to(dtype)
        return dx, drotation, None


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x).flatten(-2)
