"""Sums over the processes of a training that several share (``torchrun``), through which gradients pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.autograd import Function

if TYPE_CHECKING:
    from torch import Tensor


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _Sum(Function):
    """A sum over processes; its own adjoint."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *grads: Any) -> Any:
        return _Sum.apply(grads[0])


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of every process' ``x``. Its gradient is the sum of theirs, so that mean gradients are those of the mean loss."""
    return x if world_size() == 1 else _Sum.apply(x)


def gather_rows(x: Tensor) -> Tensor:
    """Every process' rows (n, ...), by rank: (n * processes, ...); all must have as many."""
    world = world_size()
    if world == 1:
        return x
    whole = x.new_zeros(world, *x.shape)
    mine = torch.zeros(world, dtype=torch.bool, device=x.device)
    mine[distributed.get_rank()] = True
    return sum_over_processes(torch.where(mine.view(-1, *[1] * x.ndim), x, whole)).flatten(0, 1)
