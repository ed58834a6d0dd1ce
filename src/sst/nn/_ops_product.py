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
    """Matrix product a b; gradients g b^T and a^T g are products again."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return matmul(a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        a, b = ctx.saved_tensors
        (g,) = grads
        need_a, need_b = ctx.needs_input_grad
        return (
            _Product.apply(g, b.t()) if need_a else None,
            _Product.apply(a.t(), g) if need_b else None,
        )


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Matrix product (M, K) @ (K, N), differentiable any number of times."""
    return _Product.apply(a, b)
