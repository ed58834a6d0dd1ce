"""Sums over the processes of a training that several share (``torchrun``), through which gradients pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from torch import Tensor


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of every process' ``x``. Its gradient is the sum of theirs, so that mean gradients are those of the mean loss."""
    if world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(x)


def gather_rows(x: Tensor) -> Tensor:
    """Every process' rows (n, ...), by rank: (n * processes, ...); all must have as many."""
    world = world_size()
    if world == 1:
        return x
    whole = x.new_zeros(world, *x.shape)
    mine = torch.zeros(world, dtype=torch.bool, device=x.device)
    mine[distributed.get_rank()] = True
    return sum_over_processes(torch.where(mine.view(-1, *[1] * x.ndim), x, whole)).flatten(0, 1)
