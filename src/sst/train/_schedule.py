"""A learning rate that depends on how far a run is, so that a resumed one needs to remember nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def follow_cosine(optimizer: torch.optim.Optimizer, lr: float, done: float, *, warmup: float = 1.0) -> None:
    """Set the learning rate of all groups: from ``lr`` down to 0 along half a cosine.

    Parameters
    ----------
    optimizer
        Its rates are set.
    lr
        The highest rate.
    done
        Share of the run that is over.
    warmup
        Share of the rise to ``lr`` that is over (above 1: all of it).
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * (0.5 + 0.5 * math.cos(math.pi * min(done, 1))) * min(warmup, 1)


def settle(optimizer: torch.optim.Optimizer, lr: float, done: float, share: float) -> None:
    """Set the learning rate of all groups: ``lr``, and over the last ``share`` of the run down to 0 along a line."""
    for group in optimizer.param_groups:
        group["lr"] = lr * min((1 - min(done, 1)) / share, 1) if share else lr
