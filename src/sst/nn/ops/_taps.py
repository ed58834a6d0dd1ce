r"""Columns and their adjoint, with a weight per cell, tap and channel.

For maps x (B, H', W', C), weights e (B, 9, C) and columns z (B, H, W, 9, C), with stride s and zero padding p, tap t = (t_y, t_x):

.. math::
    \mathrm{im2col}(x, e)_{bqtc} = e_{btc}\, x_{b, s q + t - p, c}, \qquad
    \mathrm{col2im}(z, e)_{brc} = \sum_{(q, t): s q + t - p = r} e_{btc}\, z_{bqtc}, \qquad
    \mathrm{dot}(x, z)_{btc} = \sum_q x_{b, s q + t - p, c}\, z_{bqtc}.

All three are the gradients of one trilinear form ``sum e_btc x_{b,sq+t-p,c} z_bqtc``, so the gradient of each consists of the other two
and the family is closed. ``e=None`` means ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.autograd import Function
from torch.nn import functional as F


class Geometry(NamedTuple):
    """Height and width of the maps, stride and padding of a 3x3 window on them."""

    height: int
    width: int
    stride: int
    pad: int

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the columns."""
        return tuple((n + 2 * self.pad - 3) // self.stride + 1 for n in (self.height, self.width))  # type: ignore[return-value]


def _windows(x: torch.Tensor, at: Geometry) -> torch.Tensor:
    """View of the padded maps as (B, H, W, 3, 3, C)."""
    p, s = at.pad, at.stride
    x = F.pad(x, (0, 0, p, p, p, p)) if p else x.contiguous()
    return x.unfold(1, 3, s).unfold(2, 3, s).permute(0, 1, 2, 4, 5, 3)


def _times(windows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Product with the windows, contiguous (PyTorch would keep the order of their overlapping strides)."""
    if torch.compiler.is_compiling():
        return (windows * factor).contiguous()
    return torch.mul(windows, factor, out=windows.new_empty(windows.shape))


def im2col_(x: torch.Tensor, e: torch.Tensor | None, at: Geometry) -> torch.Tensor:
    """Im2col without autograd: (B, H', W', C), (B, 9, C) -> (B, H, W, 9, C)."""
    windows = _windows(x, at)
    if e is None:
        return windows.contiguous().flatten(3, 4)
    return _times(windows, e.view(-1, 1, 1, 3, 3, e.shape[2])).flatten(3, 4)


def col2im_(z: torch.Tensor, e: torch.Tensor | None, at: Geometry) -> torch.Tensor:
    """Col2im without autograd: (B, H, W, 9, C), (B, 9, C) -> (B, H', W', C)."""
    p, s = at.pad, at.stride
    (b, h, w), c = z.shape[:3], z.shape[4]
    x = z.new_zeros(b, at.height + 2 * p, at.width + 2 * p, c)
    for t in range(9):
        y0, x0 = divmod(t, 3)
        target = x[:, y0 : y0 + s * (h - 1) + 1 : s, x0 : x0 + s * (w - 1) + 1 : s]
        if e is None:
            target.add_(z[:, :, :, t])
        else:
            target.addcmul_(z[:, :, :, t], e[:, t].view(b, 1, 1, c))
    return x[:, p : p + at.height, p : p + at.width].contiguous()


def dot_(x: torch.Tensor, z: torch.Tensor, at: Geometry) -> torch.Tensor:
    """Dot without autograd: (B, H', W', C), (B, H, W, 9, C) -> (B, 9, C)."""
    b, h, w, _, c = z.shape
    windows = _windows(x, at)
    return (
        _times(windows, z.unflatten(3, (3, 3))).view(b, h * w, 9, c).sum(dim=1)
    )  # accumulates in float32 whatever the dtype


class _Im2col(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, e: torch.Tensor | None, at: Geometry) -> torch.Tensor:
        ctx.save_for_backward(x, e)
        ctx.at = at
        return im2col_(x, e, at)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, e), (g,) = ctx.saved_tensors, grads
        need_x, need_e, _ = ctx.needs_input_grad
        return col2im(g, e, ctx.at) if need_x else None, dot(x, g, ctx.at) if need_e else None, None


class _Col2im(Function):
    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, e: torch.Tensor | None, at: Geometry) -> torch.Tensor:
        ctx.save_for_backward(z, e)
        ctx.at = at
        return col2im_(z, e, at)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (z, e), (g,) = ctx.saved_tensors, grads
        need_z, need_e, _ = ctx.needs_input_grad
        return im2col(g, e, ctx.at) if need_z else None, dot(g, z, ctx.at) if need_e else None, None


class _Dot(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, z: torch.Tensor, at: Geometry) -> torch.Tensor:
        ctx.save_for_backward(x, z)
        ctx.at = at
        return dot_(x, z, at)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, z), (g,) = ctx.saved_tensors, grads
        need_x, need_z, _ = ctx.needs_input_grad
        return col2im(z, g, ctx.at) if need_x else None, im2col(x, g, ctx.at) if need_z else None, None


def im2col(x: torch.Tensor, e: torch.Tensor | None, at: Geometry) -> torch.Tensor:
    """Columns of maps, times e."""
    return _Im2col.apply(x, e, at)


def col2im(z: torch.Tensor, e: torch.Tensor | None, at: Geometry) -> torch.Tensor:
    """Maps from columns times e."""
    return _Col2im.apply(z, e, at)


def dot(x: torch.Tensor, z: torch.Tensor, at: Geometry) -> torch.Tensor:
    """What e gets from maps and columns."""
    return _Dot.apply(x, z, at)
