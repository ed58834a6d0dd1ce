"""A learning rate that depends on the iteration alone, so that a resumed run needs to remember nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def follow_cosine(
    optimizer: torch.optim.Optimizer, lr: float, iteration: int, iterations: int, *, warmup: int = 0, hold: float = 0.0
) -> None:
    """Set the learning rate of an iteration: up to ``lr`` over ``warmup`` iterations, then down to 0 along half a cosine.

    Parameters
    ----------
    optimizer
        All of its groups are set.
    lr
        The highest rate.
    iteration, iterations
        This one (from 0), and how many there are.
    warmup
        Iterations of the rise.
    hold
        Share of the iterations before the fall begins.
    """
    fallen = max(iteration / max(iterations, 1) - hold, 0) / max(1 - hold, 1e-9)
    factor = (0.5 + 0.5 * math.cos(math.pi * min(fallen, 1))) * min(1, (iteration + 1) / (warmup + 1))
    for group in optimizer.param_groups:
        group["lr"] = lr * factor
