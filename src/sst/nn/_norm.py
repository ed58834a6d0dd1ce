"""Which normalisation a network uses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from sst._validate import check_choice

from ._processes import sum_over_processes, world_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Norm = Literal["batch", "group"]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose batch is that of all processes together, on any device.

    With one process it is PyTorch's own. (``torch.nn.SyncBatchNorm`` needs a GPU.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, c, h, w)."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        wide = x.float() if x.dtype in {torch.float16, torch.bfloat16} else x
        count = wide.numel() // wide.shape[1] * world_size()
        mean = sum_over_processes(wide.sum((0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = sum_over_processes(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            share = self.momentum or 0.0
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), share)  # type: ignore[union-attr]
            unbiased = variance.detach() * (count / max(count - 1, 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def norm_layer(norm: Norm) -> Callable[[int], nn.Module]:
    """What makes a normalisation of so many channels.

    ``"batch"`` (ResNet's) shares statistics over the batch, and uses running averages of them afterwards; ``"group"`` normalises
    each image by itself, in groups of up to 8 channels, and is the same in training and use.
    """
    check_choice("norm", norm, ("batch", "group"))
    return BatchNorm2d if norm == "batch" else _group_norm


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // math.gcd(channels, 8), channels)
