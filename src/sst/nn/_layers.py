"""Layers that generator and discriminator share: equalised linear maps, pixel norm, the transform of the counts."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional as F

from sst._validate import check_choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SLOPE = 0.2
GAIN = math.sqrt(2.0)


def pixel_norm(x: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """Divide by the root mean square over the last axis, so that every vector has the length sqrt(d)."""
    return x * (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()


def leaky_relu(x: torch.Tensor) -> torch.Tensor:
    """Leaky ReLU of slope 0.2 with gain sqrt 2, which keeps the second moment of a normal input at about one."""
    return F.leaky_relu(x, SLOPE) * GAIN


class EqualLinear(nn.Module):
    """Linear map with an equalised learning rate.

    The stored weight is drawn from N(0, 1) / ``lr_multiplier`` and used times ``lr_multiplier / sqrt(in_features)``, so that Adam's
    steps have the same effect in layers of every width (Karras et al., 2018), slowed by the multiplier.

    Parameters
    ----------
    in_features, out_features
        Widths.
    bias_init
        What the bias adds at the start.
    lr_multiplier
        Learning rate of this layer relative to the optimiser's.
    zero_init
        Start with a weight of zero: the output is the bias until something is learnt.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        weight = torch.zeros(out_features, in_features) if zero_init else torch.randn(out_features, in_features)
        self.weight = nn.Parameter(weight / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features)."""
        if x.ndim != 2:
            return F.linear(x * self.weight_gain, self.weight, self.bias * self.bias_gain)
        return torch.addmm(self.bias, x, self.weight.t(), beta=self.bias_gain, alpha=self.weight_gain)


class EqualMLP(nn.Module):
    """Equalised linear layers with leaky ReLU between them, and after the last one if ``activate_last``."""

    def __init__(
        self,
        widths: Sequence[int],
        *,
        lr_multiplier: float = 1.0,
        activate_last: bool = False,
        zero_init_last: bool = False,
    ) -> None:
        super().__init__()
        last = len(widths) - 2
        self.layers = nn.ModuleList(
            EqualLinear(i, o, lr_multiplier=lr_multiplier, zero_init=zero_init_last and n == last)
            for n, (i, o) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.activate_last = activate_last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, widths[0]) to (B, widths[-1])."""
        for n, layer in enumerate(self.layers):
            x = layer(x)
            if n + 1 < len(self.layers) or self.activate_last:
                x = leaky_relu(x)
        return x


class ExpressionTransform(nn.Module):
    """What a network makes of counts before its first layer.

    Parameters
    ----------
    n_genes
        Number of genes p.
    kind
        ``"log1p"``: log(1 + x), standardised per gene by the statistics given to :meth:`set_statistics`; ``"counts"``: the raw
        counts, as in the paper.
    negatives
        What becomes of values below zero (jitter makes them): ``"zero"`` sets them to 0, ``"keep"`` keeps them (with log1p as
        -log(1 - x)). ``None``: ``"zero"`` for log1p, ``"keep"`` for counts.

    Notes
    -----
    Standard deviations are floored at ``MIN_STD``, so that a gene seen in one cell of ten thousand is no outlier of 100 standard
    deviations there.
    """

    MIN_STD = 0.05
    beyond = (
        False  # whether counts outside the range of training, down to -1, are read as they are (:func:`read_beyond`)
    )
    mean: torch.Tensor
    std: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def __init__(
        self,
        n_genes: int,
        kind: Literal["log1p", "counts"] = "log1p",
        negatives: Literal["zero", "keep"] | None = None,
    ) -> None:
        super().__init__()
        self.kind = check_choice("input_transform", kind, ("log1p", "counts"))
        default: Literal["zero", "keep"] = "zero" if kind == "log1p" else "keep"
        self.negatives = check_choice("negatives", negatives or default, ("zero", "keep"))
        self.n_genes = n_genes
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("std", torch.ones(n_genes))
        self.register_buffer("low", torch.full((n_genes,), -torch.inf))
        self.register_buffer("high", torch.full((n_genes,), torch.inf))

    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set per-gene mean and standard deviation of log(1 + counts), each of shape (p,)."""
        for name, value in (("mean", mean), ("std", std)):
            value = torch.as_tensor(value)
            if value.shape != (self.n_genes,) or not torch.isfinite(value).all():
                msg = f"{name} has shape {tuple(value.shape)}; expected {self.n_genes} finite values, one a gene."
                raise ValueError(msg)
            getattr(self, name).copy_(value.clamp_min(self.MIN_STD) if name == "std" else value)

    def set_range(self, low: torch.Tensor, high: torch.Tensor) -> None:
        """Set the range of counts seen in training, (p,) each: log1p takes what lies beyond for the nearest count inside."""
        low, high = torch.as_tensor(low), torch.as_tensor(high)
        if low.shape != (self.n_genes,) or high.shape != (self.n_genes,) or not (low <= high).all():
            msg = f"low, high have shapes {tuple(low.shape)}, {tuple(high.shape)}; expected {self.n_genes} ranges low <= high."
            raise ValueError(msg)
        self.low.copy_(low)
        self.high.copy_(high)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform counts (B, p)."""
        if x.ndim != 2 or x.shape[1] != self.n_genes:
            msg = f"expression has shape {tuple(x.shape)}; expected (cells, {self.n_genes} genes)."
            raise ValueError(msg)
        x = x.to(self.mean.dtype)
        if self.beyond:
            return x if self.kind == "counts" else (x.clamp_min(-1 + 1e-6).log1p() - self.mean) / self.std
        if self.negatives == "zero":
            x = x.clamp_min(0)
        if self.kind == "counts":
            return x
        x = torch.minimum(torch.maximum(x, self.low), self.high)
        logged = x.log1p() if self.negatives == "zero" else x.sign() * x.abs().log1p()
        return (logged - self.mean) / self.std


@contextmanager
def read_beyond(*networks: nn.Module) -> Iterator[None]:
    """Within, the networks read counts that lie outside the range of their training as they are, down to -1."""
    found = [m for network in networks for m in network.modules() if isinstance(m, ExpressionTransform)]
    for transform in found:
        transform.beyond = True
    try:
        yield
    finally:
        for transform in found:
            transform.beyond = False


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Number of feature maps at a resolution: ``channel_base / resolution``, at most ``channel_max``."""
    return max(1, min(channel_base // resolution, channel_max))


def check_resolution(resolution: int) -> int:
    """Return log2 of a resolution that is a power of two in 8..512, else raise ``ValueError``."""
    return int(math.log2(check_choice("resolution", resolution, (8, 16, 32, 64, 128, 256, 512))))
