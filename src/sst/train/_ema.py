"""A running average of a module's weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


class EMA:
    """Exponential moving average of ``module``, in its own copy.

    ``decay = 0.5 ** (batch / half_life)`` a step, with ``half_life = min(images, rampup * images seen)``, so that the average
    of a short run covers the same share of its iterations as that of a long one. Buffers are copied.

    Parameters
    ----------
    module
        The module that is trained.
    images
        Half-life in images (0: the copy follows the weights at once).
    rampup
        Share of the images seen that the half-life may be at most (``None``: no limit).
    """

    def __init__(self, module: nn.Module, images: float, rampup: float | None = None) -> None:
        self.source = module
        self.images = images
        self.rampup = rampup
        self.module = copy.deepcopy(module).eval().requires_grad_(False)  # noqa: FBT003

    def decay(self, seen: int, batch_size: int) -> float:
        """The weight of the old average after ``seen`` images."""
        half_life = self.images if self.rampup is None else min(self.images, self.rampup * seen)
        return 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(self, seen: int, batch_size: int) -> None:
        """Move the average toward the weights as they are now."""
        weight = 1.0 - self.decay(seen, batch_size)
        averages: list[torch.Tensor] = list(self.module.parameters())
        sources: list[torch.Tensor] = list(self.source.parameters())
        torch._foreach_lerp_(averages, sources, weight)
        buffers = list(self.module.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(self.source.buffers()))
