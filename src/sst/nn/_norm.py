"""Which normalisation a network uses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from torch import nn

from sst._validate import check_choice

if TYPE_CHECKING:
    from collections.abc import Callable

Norm = Literal["batch", "group"]


def norm_layer(norm: Norm) -> Callable[[int], nn.Module]:
    """What makes a normalisation of so many channels.

    ``"batch"`` (ResNet's) shares statistics over the batch: over the part of it that a process has, if there are several. ``"group"``
    normalises each image by itself, in groups of up to 8 channels, and is the same in training and use, on one process or many.
    """
    check_choice("norm", norm, ("batch", "group"))
    return nn.BatchNorm2d if norm == "batch" else _group_norm


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // math.gcd(channels, 8), channels)
