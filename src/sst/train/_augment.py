"""Adaptive augmentation of what the discriminator sees, for few cells (Karras et al., 2020, *ADA*)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._draws import turn

if TYPE_CHECKING:
    from ._draws import Draws


class Augment(nn.Module):
    """Random changes of real and generated images alike, each with a probability that follows the discriminator.

    Turns and mirrors, shifts by whole pixels (reflected at the edge), brightness and contrast. None changes the size or the shape
    of a nucleus, and all keep their inverse: below a probability of one the generator still has to match the images as they are.
    With a discriminator that overfits, the mean sign of its scores of real images goes to 1; the probability is moved so that
    it stays at ``target``.

    Parameters
    ----------
    target
        Mean sign of the discriminator's scores of real images that is aimed at.
    images
        Real images over which the probability may go from 0 to 1.
    most
        Largest probability.
    shift
        Largest shift, as a share of the side.
    light
        Standard deviation of the brightness added, and of the log of the contrast.
    """

    probability: Tensor

    def __init__(
        self, target: float, *, images: int = 500_000, most: float = 0.8, shift: float = 0.125, light: float = 0.1
    ) -> None:
        super().__init__()
        self.target, self.images, self.most, self.shift, self.light = target, images, most, shift, light
        self.register_buffer("probability", torch.zeros(()))

    def follow(self, sign: Tensor, batch_size: int) -> None:
        """Move the probability by one batch: up if the scores of real images are too often positive."""
        step = torch.sign(sign - self.target) * (batch_size / self.images)
        self.probability.add_(step).clamp_(0, self.most)

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Images B x c x h x w, changed cell by cell; differentiable in the images (twice)."""
        side = images.shape[2]
        coin = draws.uniform(4) < self.probability
        turned = turn(images, draws.uniform(3), rotate=images.shape[2] == images.shape[3])
        images = torch.where(coin[:, 0, None, None, None], turned, images)
        reach = max(1, round(self.shift * side))
        moved = shift(images, torch.floor(draws.uniform(2) * (2 * reach + 1)).long() - reach, reach)
        images = torch.where(coin[:, 1, None, None, None], moved, images)
        light = draws.normal(2) * self.light * coin[:, 2:]
        black = -1.0
        return (images - black) * torch.exp(light[:, 0])[:, None, None, None] + black + light[:, 1][:, None, None, None]


def shift(images: Tensor, by: Tensor, reach: int) -> Tensor:
    """Shift each image by whole pixels ``by`` (B x 2: down, right; at most ``reach``), the edge reflected."""
    b, c, h, w = images.shape
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    rows = torch.arange(h, device=images.device) + reach - by[:, :1]  # B x h
    cols = torch.arange(w, device=images.device) + reach - by[:, 1:]
    cell = torch.arange(b, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[cell, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
