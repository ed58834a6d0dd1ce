"""A batch of cells, the random numbers that go with it, and what is done to its crops and counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Draws:
    """Random numbers of one process in one iteration: its share of what a single process would draw.

    Every process draws the whole batch's numbers and keeps its own rows, so two processes with half a batch each see the same
    numbers as one with the whole batch.
    """

    def __init__(self, device: torch.device, size: int, rank: int, world: int) -> None:
        self.device = device
        self.size = size  # cells of this process
        self.rank = rank
        self.world = world
        self.generator = torch.Generator(device)
        self.average: Callable[[Tensor], Tensor] = lambda value: value  # mean over the processes, set by fit

    def _share(self, values: Tensor) -> Tensor:
        return values[self.rank * self.size : (self.rank + 1) * self.size]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, one row a cell: B x shape."""
        whole = (self.size * self.world, *shape)
        return self._share(torch.randn(whole, generator=self.generator, device=self.device))

    def uniform(self, *shape: int) -> Tensor:
        """U(0, 1), one row a cell: B x shape."""
        whole = (self.size * self.world, *shape)
        return self._share(torch.rand(whole, generator=self.generator, device=self.device))


@dataclass
class Batch:
    """The cells of one iteration on one process.

    Attributes
    ----------
    index
        Their rows in the training data (B, on the CPU).
    images
        B x c x h x w in [-1, 1], rotated and flipped.
    expression
        B x p counts, jittered.
    labels
        B group numbers.
    other
        B x p counts of other cells, drawn independently.
    other_labels
        B group numbers of the cells of ``other``.
    draws
        Random numbers for the losses.
    iteration
        The number of the iteration.
    slides
        B slide numbers; ``None``: all cells are of one slide. ``other`` is then drawn within each cell's slide.
    distant
        B x p counts of other cells of any slide; ``None``: as ``slides``.
    done, progress
        Share of the run that is over, as a number and on the device (set by :func:`fit`).
    """

    index: Tensor
    images: Tensor
    expression: Tensor
    labels: Tensor
    other: Tensor
    other_labels: Tensor
    draws: Draws
    iteration: int
    slides: Tensor | None = None
    distant: Tensor | None = None
    done: float = 0.0
    progress: Tensor = field(default_factory=lambda: torch.zeros(()))


def to_unit(images: Tensor) -> Tensor:
    """Uint8 to float32 in [-1, 1]: ``x / 127.5 - 1``."""
    return images.to(torch.float32).mul_(1 / 127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """The inverse of :func:`to_unit`, rounded and clipped."""
    return images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def turn(images: Tensor, u: Tensor, *, rotate: bool = True, flip: bool = True) -> Tensor:
    """Quarter turns and mirror images, cell by cell.

    A transposition and the two mirrors make all eight symmetries of the square; mirrors alone are those of ``flip``.

    Parameters
    ----------
    images
        B x c x h x w, square if ``rotate``.
    u
        B x 3, uniform in (0, 1).
    rotate, flip
        Which symmetries: both (8), turns alone (4), the left-right mirror alone (2).
    """
    coin = (u < 0.5)[:, :, None, None, None]
    if rotate:
        if flip:
            images = torch.where(coin[:, 0], images.transpose(2, 3), images)
            images = torch.where(coin[:, 1], images.flip(3), images)
            return torch.where(coin[:, 2], images.flip(2), images)
        images = torch.where(coin[:, 0], images.transpose(2, 3).flip(3), images)  # a quarter turn, then perhaps a half
        return torch.where(coin[:, 1], images.flip(2, 3), images)
    return torch.where(coin[:, 0], images.flip(3), images) if flip else images


def jitter_counts(x: Tensor, u: Tensor, t: Tensor) -> Tensor:
    """``x + u * t``, with ``u`` and ``t`` uniform in (0, 1); ``t`` stands for {-1, 0, 1} in equal parts."""
    return x + u * (torch.floor(t * 3) - 1)


def mix(seed: int, iteration: int, rank: int = 0) -> int:
    """A 63-bit seed from three numbers."""
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(2, np.uint32).view(np.uint64)[0] >> 1)
