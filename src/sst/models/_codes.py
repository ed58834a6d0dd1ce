"""Codes of cells: what E_c and E_p say about an image, refined if asked for, kept apart from the genes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sst.nn import Code, base_code, decode
from sst.train import encode, inversion_loss, to_unit

if TYPE_CHECKING:
    from torch import Tensor

    from sst.nn import ClipTowers, Generator, PixelEncoder


MAP_LR = 0.06


@dataclass(frozen=True)
class Codes:
    """What is known of a batch of cells before their genes are looked at.

    Attributes
    ----------
    base
        ``mapping(E_c(x))``, (n, w_dim).
    code
        What E_p says, refined.
    """

    base: Tensor
    code: Code


@torch.no_grad()
def find_codes(
    encoder: PixelEncoder,
    generator: Generator,
    towers: ClipTowers,
    images: Tensor,
    counts: Tensor,
    *,
    passes: int,
    refine_steps: int = 0,
    distances: tuple[Any, Any] = (None, None),
    weights: tuple[float, float, float] = (15.0, 0.5, 0.5),
    lr: float = 0.1,
) -> Codes:
    """Codes of cells from their real images and their own, unedited counts.

    Parameters
    ----------
    encoder, generator, towers
        In evaluation mode.
    images, counts
        (n, c, h, w) uint8 and (n, p).
    passes
        Passes of the encoder (:func:`sst.train.encode`).
    refine_steps
        Steps of Adam on the code of each cell, by the training's own loss; each cell keeps the best code it had, so no cell
        gets worse than the encoder left it.
    distances, weights
        Perceptual and identity network, and the weights of L2 and of these two.
    lr
        Of the optimisation, for the styles; maps, whose values are that much smaller, get ``MAP_LR`` of it. Falls to a tenth along a
        cosine.
    """
    real = to_unit(images)
    base = base_code(generator, towers.encode_image(real))
    code = encode(encoder, generator, base, real, counts, passes=passes)
    if refine_steps:
        code = _optimise(generator, base, code, real, counts, refine_steps, distances, weights, lr)
    return Codes(base, code)


def _optimise(
    generator: Generator,
    base: Tensor,
    code: Code,
    real: Tensor,
    counts: Tensor,
    steps: int,
    distances: tuple[Any, Any],
    weights: tuple[float, float, float],
    lr: float,
) -> Code:
    """Best code of each cell over ``steps`` of Adam; cells do not touch each other (their losses are added)."""
    parts: dict[str, Any] = {
        name: (weight, network, network.targets(real))
        for name, weight, network in zip(("perceptual", "identity"), weights[1:], distances, strict=True)
        if network is not None and weight
    }
    best, best_loss = code.each(torch.clone), torch.full((len(real),), float("inf"), device=real.device)
    with torch.enable_grad():
        free = code.each(lambda part: part.clone().requires_grad_())
        groups = [{"params": [free.styles], "lr": lr}, {"params": list(free.maps), "lr": MAP_LR * lr}]
        optimizer = torch.optim.Adam(groups if free.maps else groups[:1])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda k: 0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi * k / max(steps, 1)))
        )
        for step in range(steps + 1):
            output = decode(generator, base, free, counts).float()
            loss = inversion_loss(output, real, l2=weights[0], **parts)["total"]
            better = loss.detach() < best_loss
            best_loss[better] = loss.detach()[better]
            for mine, theirs in zip(best.tensors, free.tensors, strict=True):
                mine[better] = theirs.detach()[better]
            if step == steps:
                break
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            schedule.step()
    return best
