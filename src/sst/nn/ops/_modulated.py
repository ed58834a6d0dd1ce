r"""The operators of the networks, each in the form that is fastest for its shape. Feature maps are (B, H, W, C).

A modulated convolution has, for cell b, the kernel ``W[o,t,i] s[b,i] d[b,t] c[b,o]`` over taps t (s style, d gene kernel, c demodulation).
Its plain form makes that kernel for every cell and convolves with a group a cell. Here, equal in exact arithmetic:

*demodulation*
    c[b,o] = (sum_{t,i} W[o,t,i]^2 d[b,t]^2 s[b,i]^2 + eps)^{-1/2} is one matrix product.
*columns* (small maps)
    ``y = c (im2col(x, d s) W^T)``: one product with the shared weight, its gradients two.
*up* (stride 1/2)
    ``y = narrow(col2im((s x) W^T, d c))``: one product at the small size, then nine strided sums, then the FIR filter.
*cell kernels* (large maps)
    the kernel of every cell in one pass, then a dense convolution a cell (in float32 on a CPU with a quarter of the multiplications).
*to image* (few outputs)
    nine planes a channel in one product, s and d folded into the weight of every cell; then the sum of the shifted planes.

``_choice`` is the one place that chooses. Gains (sqrt 2 of leaky ReLU) are folded into c.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

from ._choice import choose_form, keep_columns
from ._conv import conv
from ._fir import resample
from ._product import linear, matmul, product
from ._taps import Geometry, col2im, dot, im2col, im2col_


class _Power(Function):
    """Squared length of each output's kernel, sum_k W[o,k]^2 m[b,k]^2, (O, K) and (B, K) -> (B, O); W^2 is not kept."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, m)
        return torch.mm(m.square(), weight.square().t())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (weight, m), (g,) = ctx.saved_tensors, grads
        need_weight, need_m = ctx.needs_input_grad
        outer = torch.mm(g.t(), 2 * m.square()) if need_weight else None
        if outer is not None:
            outer = outer * weight if torch.is_grad_enabled() else outer.mul_(weight)
        return outer, torch.mm(g, weight.square()) * (2 * m) if need_m else None


class _CellKernels(Function):
    """W[o,k] m[b,k] c[b,o] for every cell, keeping none of the factors' products for the gradient."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, m: torch.Tensor, c: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        ctx.save_for_backward(weight, m, c)
        return (weight * m[:, None]).mul_(c[:, :, None]).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        weight, m, c = ctx.saved_tensors
        g = grads[0].to(weight.dtype)
        inner = g * weight
        return (
            (g * c[:, :, None] * m[:, None]).sum(dim=0),
            torch.matmul(c[:, None], inner).squeeze(1),
            torch.matmul(inner, m[:, :, None]).squeeze(2),
            None,
        )


def _spread(x: torch.Tensor, kernel: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    """Transposed convolution at stride 2, col2im(x W^T, e): (B, H, W, I), (9 O, I), (B, 9, O) -> (B, 2H+1, 2W+1, O)."""
    b, h, w, i = x.shape
    z = linear(x.reshape(-1, i), kernel).view(b, h, w, 9, -1)
    return col2im(z, e, Geometry(2 * h + 1, 2 * w + 1, 2, 0))


class _Spread(Function):
    """:func:`_spread`, which keeps no columns for the gradient: nine planes of the output's channels at large maps.

    With the columns G of the output's gradient and A[b] = G[b]^T x[b], the kernel gets sum_b e[b] A[b] and e[b] gets the sum of W A[b] over
    inputs: as much arithmetic as with columns kept.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, kernel, e)
        return _spread(x, kernel, e)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, kernel, e), (g,) = ctx.saved_tensors, grads
        b, h, w, i = x.shape
        at = Geometry(2 * h + 1, 2 * w + 1, 2, 0)
        if torch.is_grad_enabled():  # to be differentiated again: of the family
            need_x, need_kernel, need_e = ctx.needs_input_grad
            flat, columns = x.reshape(-1, i), im2col(g, e, at).view(b * h * w, -1)
            return (
                product(columns, kernel).view_as(x) if need_x else None,
                product(columns.t(), flat) if need_kernel else None,
                dot(g, linear(flat, kernel).view(b, h, w, 9, -1), at) if need_e else None,
            )
        columns = im2col_(g, None, at)  # (B, H, W, 9, O)
        to_kernel, to_e = torch.zeros_like(kernel, dtype=torch.promote_types(kernel.dtype, torch.float32)), []
        for cell, maps, factor in zip(columns.view(b, h * w, -1), x.reshape(b, -1, i), e.flatten(1), strict=True):
            a = matmul(cell.t(), maps)  # (9 O, I)
            to_kernel.addcmul_(a, factor[:, None].to(a.dtype))
            to_e.append((a * kernel).sum(dim=1))
        columns *= e.view(b, 1, 1, *e.shape[1:])
        to_x = matmul(columns.view(b * h * w, -1), kernel).view_as(x)
        return to_x, to_kernel.to(kernel.dtype), torch.stack(to_e).view_as(e)


def modulated_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    taps: torch.Tensor,
    *,
    up: bool = False,
    gain: float = 1.0,
    eps: float = 1e-8,
) -> torch.Tensor:
    """Demodulated convolution with a kernel a cell.

    Parameters
    ----------
    x
        Maps (B, H, W, I), in the dtype to compute in.
    weight
        (O, 3, 3, I), or with ``up`` (3, 3, O, I).
    style
        (B, I), the scale of the weights included.
    taps
        Gene kernels (B, 3, 3).
    up
        At stride 1/2, followed by the FIR filter.
    gain
        Factor of the result.
    eps
        Added to the kernels' squared length.

    Returns
    -------
    (B, H, W, O), or with ``up`` (B, 2H, 2W, O).
    """
    b, h, w, i = x.shape
    taps = taps.reshape(b, 9)
    o = weight.shape[2 if up else 0]
    form = choose_form(h, w, i, o, up=up)
    if form == "up":
        kernel = weight.view(9 * o, i)
        power = _Power.apply(kernel, style).view(b, 9, o)
        c = gain * ((power * taps.square()[:, :, None]).sum(dim=1) + eps).rsqrt()
        scaled = (x * style.to(x.dtype)[:, None, None]).view(-1, i)
        e = (taps[:, :, None] * c[:, None]).to(x.dtype)
        spread = _spread if keep_columns(b, h, w, o) else _Spread.apply
        return resample(spread(scaled.view(b, h, w, i), kernel.to(x.dtype), e), "narrow", 4.0)
    at = Geometry(h, w, 1, 1)
    kernel = weight.view(o, 9 * i)
    e = taps[:, :, None] * style[:, None]  # (B, 9, I)
    c = gain * (_Power.apply(kernel, e.view(b, -1)) + eps).rsqrt()
    if form == "columns":
        z = im2col(x, e.to(x.dtype), at).view(-1, 9 * i)
        y = linear(z, kernel.to(x.dtype)).view(b, h, w, o)
        return y * c.to(x.dtype)[:, None, None]
    kernels = _CellKernels.apply(kernel, e.view(b, -1), c, x.dtype)
    return conv(x, kernels.view(b, o, 3, 3, i), at)


def _shifts(height: int, width: int) -> list[tuple[slice, slice, slice, slice]]:
    """Where each tap's plane goes (rows, columns of the target), and which part of it."""
    ranges = [(slice(0, n - 1), slice(1, n)) for n in (height, width)]
    whole = [(slice(0, n), slice(0, n)) for n in (height, width)]
    rows = [ranges[0][::-1], whole[0], ranges[0]]
    columns = [ranges[1][::-1], whole[1], ranges[1]]
    return [(*(r[0], c[0]), *(r[1], c[1])) for r in rows for c in columns]


class _SumShifted(Function):
    """Planes (B, c, H, W) from those of the taps, (B, 9, c, H, W): out[q] = sum_t z_t[q + t - 1]."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
        out = z[:, 4].clone()
        for t, (y, x, from_y, from_x) in enumerate(_shifts(*z.shape[3:])):
            if t != 4:
                out[:, :, y, x] += z[:, t, :, from_y, from_x]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Shifted.apply(grads[0])


class _Shifted(Function):
    """The adjoint: z_t[q + t - 1] = x[q]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        z = x.new_zeros(b, 9, c, h, w)
        for t, (y, x0, from_y, from_x) in enumerate(_shifts(h, w)):
            z[:, t, :, from_y, from_x] = x[:, :, y, x0]
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _SumShifted.apply(grads[0])


def to_image(x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Convolution with a kernel a cell to few channels, not demodulated.

    ``x`` (B, H, W, I), ``weight`` (3, 3, c, I), ``style`` (B, I), ``taps`` (B, 3, 3) -> planes (B, c, H, W) in the dtype of the weight.
    """
    b, h, w, i = x.shape
    channels = weight.shape[2]
    kernels = weight.view(1, 9, channels, i) * taps.reshape(b, 9, 1, 1) * style[:, None, None]  # (B, 9, c, I)
    z = torch.bmm(kernels.to(x.dtype).view(b, -1, i), x.reshape(b, h * w, i).transpose(1, 2))
    return _SumShifted.apply(z.to(weight.dtype).view(b, 9, channels, h, w))


def conv3x3(x: torch.Tensor, weight: torch.Tensor, *, down: bool = False) -> torch.Tensor:
    """3x3 convolution of (B, H, W, I) with weight (O, 3, 3, I); ``down``: FIR filter first, then stride 2."""
    if down:
        x = resample(x, "widen")
    h, w = x.shape[1:3]
    return conv(x, weight.to(x.dtype), Geometry(h, w, 2, 0) if down else Geometry(h, w, 1, 1))


def conv1x1(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """1x1 convolution of (B, H, W, I) with weight (O, I)."""
    return linear(x.reshape(-1, x.shape[3]), weight.to(x.dtype)).view(*x.shape[:3], -1)


def downsample(x: torch.Tensor) -> torch.Tensor:
    """Half the size, (B, H, W, C) -> (B, H/2, W/2, C): the FIR filter at every second pixel."""
    return resample(x, "halve")
