"""Bias, noise and leaky ReLU in one pass; the gradient needs the output alone.

In words: add to each pixel its channel's bias and its own noise, the same for all channels; what is then negative is taken a fifth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function
from torch.nn import functional as F

from sst.nn._layers import SLOPE


class _LeakyGradient(Function):
    """g where the output is positive, else 0.2 g: linear in g, and its own adjoint."""

    @staticmethod
    def forward(ctx: Any, g: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(out)
        return torch.ops.aten.leaky_relu_backward(g, out, SLOPE, True)  # noqa: FBT003

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _LeakyGradient.apply(grads[0], ctx.saved_tensors[0]), None


class _Activate(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        out = x + bias.to(x.dtype)
        if noise is not None:
            out += noise.to(x.dtype)
        F.leaky_relu_(out, SLOPE)
        ctx.save_for_backward(out)
        ctx.dtypes = bias.dtype, None if noise is None else noise.dtype
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (out,) = ctx.saved_tensors
        need_x, need_bias, need_noise = ctx.needs_input_grad
        if not (need_x or need_bias or need_noise):
            return None, None, None
        g = _LeakyGradient.apply(grads[0], out)
        bias, noise = ctx.dtypes
        return (
            g if need_x else None,
            g.sum(dim=(0, 1, 2), dtype=bias) if need_bias else None,
            g.sum(dim=3, keepdim=True, dtype=noise) if need_noise else None,
        )


def activate(x: torch.Tensor, bias: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
    """Leaky ReLU (slope 0.2, gain 1) of maps (B, H, W, C) + bias (C) + noise (B, H, W, 1).

    Leaky ReLU is positively homogeneous: whoever wants another gain multiplies all three by it, where that costs nothing.
    """
    return _Activate.apply(x, bias, noise)
