r"""FIR resampling with the separable filter [1, 3, 3, 1] of StyleGAN2: four linear maps in two adjoint pairs.

With the filter f = [1, 3, 3, 1] (x) [1, 3, 3, 1] / 64, symmetric, on maps (B, H, W, C) with zeros outside:

- ``widen`` (H -> H + 1, padding 2) and ``narrow`` (H + 1 -> H, padding 1) are each other's adjoint;
- ``halve`` (every second pixel of the filtered maps, H -> H / 2) and ``double`` (zeros between the pixels, then the filter) likewise.

Their gradients are each other, so they are differentiable any number of times. Each is one depthwise convolution.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

_ADJOINT = {"widen": "narrow", "narrow": "widen", "halve": "double", "double": "halve"}


def _kept(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Make each tensor once; what is compiled makes it in its graph, of plain arithmetic on the device itself."""

    @functools.cache
    def kept(*key: Any) -> torch.Tensor:
        with torch.inference_mode(mode=False):  # it may be trained with later
            return make(*key)

    @functools.wraps(make)
    def get(*key: Any) -> torch.Tensor:
        return make(*key) if torch.compiler.is_compiling() else kept(*key)

    return get


def _binomial(t: torch.Tensor) -> torch.Tensor:
    """1, 3, 3, 1 at 0, 1, 2, 3 and zero at all other whole numbers."""
    return (1 + t * (3 - t)).clamp_min(0)


@_kept
def _kernel(channels: int, gain: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The filter, (C, 1, 4, 4)."""
    k = _binomial(torch.arange(4, device=device)).to(dtype)
    return (k[:, None] * k * (gain / 64)).expand(channels, 1, 4, 4).contiguous()


def resample_(x: torch.Tensor, kind: str, gain: float) -> torch.Tensor:
    """One of the four maps times ``gain``, without autograd."""
    b, h, w, c = x.shape
    if kind == "double":
        y = x.new_zeros(b, 2 * h + 1, 2 * w + 1, c)  # a margin before the first pixel, so that all padding is 1
        y[:, 1::2, 1::2] = x
        x = y
    pad = {"widen": 2, "narrow": 1, "halve": 1, "double": 1}[kind]
    kernel = _kernel(c, gain, x.dtype, x.device)
    stride = 2 if kind == "halve" else 1
    y = F.conv2d(x.contiguous().permute(0, 3, 1, 2), kernel, None, stride, pad, groups=c)
    return y.permute(0, 2, 3, 1).contiguous()


class _Resample(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kind: str, gain: float) -> torch.Tensor:
        ctx.kind, ctx.gain = kind, gain
        return resample_(x, kind, gain)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Resample.apply(grads[0], _ADJOINT[ctx.kind], ctx.gain), None, None


def resample(x: torch.Tensor, kind: str, gain: float = 1.0) -> torch.Tensor:
    """``widen``, ``narrow``, ``halve`` or ``double`` maps (B, H, W, C), times ``gain``."""
    return _Resample.apply(x, kind, gain)


@_kept
def _doubling(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Matrix (2n, n) of ``double`` along one axis with gain 2: columns hold [1, 3, 3, 1] / 4 in rows 2i - 1 to 2i + 2."""
    rows, columns = torch.arange(2 * size, device=device), torch.arange(size, device=device)
    return _binomial(rows[:, None] - 2 * columns + 1).to(dtype) / 4


def double_planes(x: torch.Tensor) -> torch.Tensor:
    """``double`` with gain 4 of a few planes (B, c, H, W): the filter is separable, so two products with a small matrix."""
    return _doubling(x.shape[2], x.dtype, x.device) @ x @ _doubling(x.shape[3], x.dtype, x.device).t()
