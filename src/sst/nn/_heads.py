"""Style heads: from a pyramid of feature maps to one vector per style input of the generator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class _HeadGroup(nn.Module):
    """``heads`` heads that read the same map, computed together.

    Each head is a chain of stride-2 3x3 convolutions with leaky ReLU down to 1x1, then an equalised linear layer. The
    first convolutions are one convolution with ``heads * width`` outputs, the later ones one grouped convolution, the
    linear layers one batched product; tested equal to the heads run one by one.
    """

    def __init__(self, heads: int, in_channels: int, size: int, width: int, out_features: int) -> None:
        super().__init__()
        self.heads = heads
        self.steps = max(math.ceil(math.log2(size)), 1)
        self.width = width
        self.weight0 = nn.Parameter(torch.empty(heads * width, in_channels, 3, 3))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(heads * width, width, 3, 3)) for _ in range(self.steps - 1)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(heads * width)) for _ in range(self.steps))
        for weight in (self.weight0, *self.weights):
            nn.init.kaiming_normal_(weight, a=0.01)
        # Equalised: unit variance in the parameter, 1 / sqrt(fan in) at run time.
        self.linear = nn.Parameter(torch.randn(heads, out_features, width) * 0.1)  # begin near the mean code
        self.bias = nn.Parameter(torch.zeros(heads, out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in_channels, size, size) -> (n, heads, out_features)."""
        x = F.leaky_relu(F.conv2d(x, self.weight0, self.biases[0], stride=2, padding=1), 0.01)
        for weight, bias in zip(self.weights, list(self.biases)[1:], strict=True):
            x = F.leaky_relu(F.conv2d(x, weight, bias, stride=2, padding=1, groups=self.heads), 0.01)
        x = x.mean((2, 3)).unflatten(1, (self.heads, self.width))  # n, heads, width
        return torch.einsum("nhi,hoi->nho", x, self.linear / math.sqrt(self.width)) + self.bias


class StyleHeads(nn.Module):
    """One head per style input, coarse ones on the coarse map, fine ones on the fine map.

    Parameters
    ----------
    in_channels
        Channels of the pyramid's maps.
    sizes
        Sizes (px) of the pyramid's maps, coarse to fine.
    levels
        For each style input, the index of the map it reads; must not decrease.
    width
        Channels inside a head.
    out_features
        Length of a style vector (the generator's ``w_dim``).
    """

    def __init__(
        self,
        in_channels: int,
        sizes: Sequence[int],
        levels: Sequence[int],
        *,
        width: int = 512,
        out_features: int = 512,
    ) -> None:
        super().__init__()
        if list(levels) != sorted(levels) or not levels or levels[-1] >= len(sizes):
            msg = f"levels={list(levels)} must be sorted indices of the {len(sizes)} maps."
            raise ValueError(msg)
        self.used = sorted(set(levels))
        self.groups = nn.ModuleList(
            _HeadGroup(list(levels).count(level), in_channels, sizes[level], width, out_features) for level in self.used
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Maps (n, in_channels, s, s), coarse to fine, -> (n, styles, out_features)."""
        return torch.cat([group(pyramid[level]) for level, group in zip(self.used, self.groups, strict=True)], dim=1)
