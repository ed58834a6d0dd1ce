r"""The 3x3 convolution and its two gradients, with one kernel for all cells or one a cell.

In words: every pixel of the output is the sum, over the 3x3 pixels around its place in the padded input and over the input's channels, of pixel times
weight, at every pixel (stride 1) or every second one (stride 2).

``conv(x, w)``, ``conv_input(y, w)`` and ``conv_weight(x, y)`` are the gradients of one trilinear form <y, w * x> in y, x and w: the gradient of
each consists of the other two and the family is closed. Maps are (B, H, W, C), weights (O, 3, 3, I), or (B, O, 3, 3, I) for one a cell.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

from ._choice import choose_routine
from ._product import matmul
from ._taps import Geometry, col2im_, im2col_
from ._winograd import winograd_conv_, winograd_conv_input_, winograd_conv_weight_


def _nchw(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().permute(0, 3, 1, 2)


def _nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _backward(
    y: torch.Tensor, x: torch.Tensor, w: torch.Tensor, at: Geometry, groups: int, mask: tuple[bool, bool]
) -> torch.Tensor:
    """One gradient of the convolution of NCHW tensors."""
    s, p, transposed = [at.stride] * 2, [at.pad] * 2, False
    out = torch.ops.aten.convolution_backward(y, x, w, None, s, p, [1, 1], transposed, [0, 0], groups, (*mask, False))
    return out[0] if mask[0] else out[1]


def _grouped(x: torch.Tensor) -> torch.Tensor:
    """Maps of all cells beside one another, (B, H, W, C) -> (1, B C, H, W)."""
    b, h, w, c = x.shape
    return x.permute(0, 3, 1, 2).reshape(1, b * c, h, w).contiguous()


def _ungrouped(x: torch.Tensor, b: int) -> torch.Tensor:
    return x.view(b, -1, *x.shape[2:]).permute(0, 2, 3, 1).contiguous()


def grouped_conv_(x: torch.Tensor, w: torch.Tensor, at: Geometry) -> torch.Tensor:
    """Convolution with a kernel a cell, as one call with a group a cell."""
    b, o, _, _, i = w.shape
    kernel = w.reshape(b * o, 3, 3, i).permute(0, 3, 1, 2).contiguous()
    return _ungrouped(torch.conv2d(_grouped(x), kernel, None, [at.stride] * 2, [at.pad] * 2, groups=b), b)


def grouped_conv_input_(y: torch.Tensor, w: torch.Tensor, at: Geometry) -> torch.Tensor:
    """Gradient of the input of :func:`grouped_conv_`."""
    b, o, _, _, i = w.shape
    kernel = w.reshape(b * o, 3, 3, i).permute(0, 3, 1, 2).contiguous()
    x = y.new_empty(1, b * i, at.height, at.width)
    return _ungrouped(_backward(_grouped(y), x, kernel, at, b, (True, False)), b)


def grouped_conv_weight_(x: torch.Tensor, y: torch.Tensor, at: Geometry) -> torch.Tensor:
    """Gradient of the kernels of :func:`grouped_conv_`."""
    b, i, o = x.shape[0], x.shape[3], y.shape[3]
    grad = _backward(_grouped(y), _grouped(x), x.new_empty(b * o, i, 3, 3), at, b, (False, True))
    return grad.view(b, o, i, 3, 3).permute(0, 1, 3, 4, 2).contiguous()


def conv_(x: torch.Tensor, w: torch.Tensor, at: Geometry) -> torch.Tensor:
    """Convolution without autograd: (B, H', W', I) -> (B, H, W, O)."""
    if w.ndim == 5:
        if x.device.type != "cpu":
            return grouped_conv_(x, w, at)
        return torch.cat([conv_(cell, kernel, at) for cell, kernel in zip(x.split(1), w, strict=True)])
    routine = choose_routine(x, at, w.shape[3], w.shape[0], x.shape[0], weight_gradient=False)
    if routine == "winograd":
        return winograd_conv_(x, w)
    if routine == "columns":
        z = im2col_(x, None, at)
        return matmul(z.flatten(0, 2).flatten(1), w.flatten(1).t()).view(*z.shape[:3], -1)
    return _nhwc(torch.conv2d(_nchw(x), _nchw(w), None, [at.stride] * 2, [at.pad] * 2))


def conv_input_(y: torch.Tensor, w: torch.Tensor, at: Geometry) -> torch.Tensor:
    """Gradient of the input, without autograd: (B, H, W, O) -> (B, H', W', I)."""
    if w.ndim == 5:
        if y.device.type != "cpu":
            return grouped_conv_input_(y, w, at)
        return torch.cat([conv_input_(cell, kernel, at) for cell, kernel in zip(y.split(1), w, strict=True)])
    b, i, o = y.shape[0], w.shape[3], w.shape[0]
    routine = choose_routine(y, at, i, o, b, weight_gradient=False)
    if routine == "winograd":
        return winograd_conv_input_(y, w)
    if routine == "columns":
        z = matmul(y.reshape(-1, o), w.flatten(1)).view(*y.shape[:3], 9, i)
        return col2im_(z, None, at)
    x = y.new_empty(b, at.height, at.width, i)
    return _nhwc(_backward(_nchw(y), _nchw(x), _nchw(w), at, 1, (True, False)))


def conv_weight_(x: torch.Tensor, y: torch.Tensor, at: Geometry, *, per_cell: bool) -> torch.Tensor:
    """Gradient of the weight, without autograd: (B, H', W', I), (B, H, W, O) -> (O, 3, 3, I) or (B, O, 3, 3, I)."""
    if per_cell:
        if x.device.type != "cpu":
            return grouped_conv_weight_(x, y, at)
        cells = zip(x.split(1), y.split(1), strict=True)
        return torch.stack([conv_weight_(cell, out, at, per_cell=False) for cell, out in cells])
    i, o = x.shape[3], y.shape[3]
    routine = choose_routine(x, at, i, o, x.shape[0], weight_gradient=True)
    if routine == "winograd":
        return winograd_conv_weight_(x, y)
    if routine == "columns":
        z = im2col_(x, None, at)
        return matmul(y.reshape(-1, o).t(), z.flatten(0, 2).flatten(1)).view(o, 3, 3, i)
    return _nhwc(_backward(_nchw(y), _nchw(x), _nchw(x.new_empty(o, 3, 3, i)), at, 1, (False, True)))


class _Conv(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, at: Geometry) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        ctx.at = at
        return conv_(x, w, at)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, w), (g,) = ctx.saved_tensors, grads
        need_x, need_w, _ = ctx.needs_input_grad
        return (
            conv_input(g, w, ctx.at) if need_x else None,
            conv_weight(x, g, ctx.at, per_cell=w.ndim == 5) if need_w else None,
            None,
        )


class _ConvInput(Function):
    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, w: torch.Tensor, at: Geometry) -> torch.Tensor:
        ctx.save_for_backward(y, w)
        ctx.at = at
        return conv_input_(y, w, at)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (y, w), (g,) = ctx.saved_tensors, grads
        need_y, need_w, _ = ctx.needs_input_grad
        return (
            conv(g, w, ctx.at) if need_y else None,
            conv_weight(g, y, ctx.at, per_cell=w.ndim == 5) if need_w else None,
            None,
        )


class _ConvWeight(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, at: Geometry, per_cell: bool) -> torch.Tensor:  # noqa: FBT001
        ctx.save_for_backward(x, y)
        ctx.at = at
        return conv_weight_(x, y, at, per_cell=per_cell)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, y), (g,) = ctx.saved_tensors, grads
        need_x, need_y = ctx.needs_input_grad[:2]
        return conv_input(y, g, ctx.at) if need_x else None, conv(x, g, ctx.at) if need_y else None, None, None


def conv(x: torch.Tensor, w: torch.Tensor, at: Geometry) -> torch.Tensor:
    """Convolution of maps with a kernel."""
    return _Conv.apply(x, w, at)


def conv_input(y: torch.Tensor, w: torch.Tensor, at: Geometry) -> torch.Tensor:
    """What the maps get from the output (the transposed convolution)."""
    return _ConvInput.apply(y, w, at)


def conv_weight(x: torch.Tensor, y: torch.Tensor, at: Geometry, *, per_cell: bool = False) -> torch.Tensor:
    """What the kernel gets from maps and output."""
    return _ConvWeight.apply(x, y, at, per_cell)
