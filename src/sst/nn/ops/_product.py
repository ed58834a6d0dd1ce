"""The matrix product, on the fastest routine at hand."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

# oneDNN's float32 product uses AVX-512 on every CPU that has it; the BLAS of PyTorch's wheels does so only on Intel's (2.1x apart
# on an AMD Zen 5). PyTorch reaches it through this operator alone.
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
_SMALL = 2**21  # multiply-adds below which the call's overhead decides


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Matrix product a (M, K) @ b (K, N) without autograd."""
    if (
        _ONEDNN is not None
        and a.dtype == torch.float32
        and a.device.type == "cpu"
        and a.shape[0] * a.shape[1] * b.shape[1] > _SMALL
    ):
        return _ONEDNN(a, b.t(), None, "none", [], "")
    return a @ b


class _Product(Function):
    """a b; the gradients g b^T and a^T g are of the family."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return matmul(a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (a, b), (g,) = ctx.saved_tensors, grads
        need_a, need_b = ctx.needs_input_grad
        return _Linear.apply(g, b) if need_a else None, _Product.apply(a.t(), g) if need_b else None


class _Linear(Function):
    """x w^T; the gradients g w and g^T x are of the family, the weight's in the weight's own layout."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return matmul(x, w.t())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, w), (g,) = ctx.saved_tensors, grads
        need_x, need_w = ctx.needs_input_grad
        return _Product.apply(g, w) if need_x else None, _Product.apply(g.t(), x) if need_w else None


def linear(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Product x (M, K) w^T for w (N, K), differentiable any number of times."""
    return _Linear.apply(x, w)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Product a (M, K) b (K, N), differentiable any number of times."""
    return _Product.apply(a, b)
