"""The body at the centre of a crop, found in the crop itself: what an edit enlarges and stretches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._traits import WIDE, blur, bright, core_level, moments, places, window

REACH, WITHIN = 1.45, 1.1  # radii of the body: how far a stain that makes it moves with it, and any other
AGAIN = 2.0  # radii of the first guess: where it is looked for a second time


@dataclass(frozen=True)
class Body:
    """An ellipse in each crop.

    Attributes
    ----------
    offset
        From its centre, right and down, (B, 2, h, w), in halves of the side.
    square
        Of the distance from its centre, in its radii, (B, h, w): 1 on its outline.
    axis
        cos and sin of twice the angle of its long axis, (B, 2).
    made_of
        Stains that show it, (c,).
    """

    offset: torch.Tensor
    square: torch.Tensor
    axis: torch.Tensor
    made_of: torch.Tensor

    def near(self, extent: float | torch.Tensor, zoom: torch.Tensor | None = None) -> torch.Tensor:
        """1 in the body, fading at ``extent`` times its radii, (B, 1, h, w); of a body enlarged by ``exp(zoom)``, (B, c), (B, c, h, w)."""
        square = self.square[:, None]
        if zoom is not None:
            square = square * (-2 * zoom).exp()[..., None, None]
        return (-((square / extent**2) ** 3)).exp()

    def flow(self, zoom: torch.Tensor, stretch: torch.Tensor) -> torch.Tensor:
        """Where to read so that the body is ``exp(zoom)`` as large, and ``exp(stretch)`` longer and narrower: (B, c, 2, h, w) of (B, c) each.

        Stains that do not show it move inside it alone: a nucleus is a hole in the stain of a membrane, which stays where it is.
        """
        size = (-zoom).exp()
        same, other = size * stretch.cosh() - 1, size * stretch.sinh()
        cos, sin = self.axis[:, None, :, None, None].unbind(dim=2)  # B x 1 x 1 x 1
        right, down = self.offset[:, None].unbind(dim=2)  # B x 1 x h x w
        same, other = same[..., None, None], other[..., None, None]
        moved = [same * right - other * (cos * right + sin * down), same * down - other * (sin * right - cos * down)]
        extent = torch.where(self.made_of, REACH, WITHIN)[:, None, None]
        return torch.stack(moved, dim=2) * self.near(extent, zoom)[:, :, None]


@torch.no_grad()
def find_body(images: torch.Tensor, centred: torch.Tensor) -> Body:
    """The ellipse of what is bright at the centre of crops (B, c, h, w), from 0 to 1, in the stains that ``centred`` (c,) marks.

    If it marks none, the body is the middle of the crop.
    """
    marked = centred.to(images.dtype)[:, None, None]
    seen = (bright(blur(images), core_level(images), WIDE) * marked).sum(dim=1, keepdim=True)
    seen = torch.where(marked.sum() > 0, seen, torch.ones_like(seen))
    guess = _ellipse(seen * window(images), centred)
    return _ellipse(seen * guess.near(AGAIN), centred)


def _ellipse(weight: torch.Tensor, made_of: torch.Tensor) -> Body:
    """That of the moments of a weight (B, 1, h, w)."""
    centre, spread = (found[:, 0] for found in moments(weight))
    offset = torch.stack(places(weight)) - centre[..., None, None]
    xx, yy, xy = spread.unbind(dim=1)
    axis = torch.stack([xx - yy, 2 * xy], dim=1)
    axis = axis / axis.norm(dim=1, keepdim=True).clamp_min(1e-6)
    (right, down), around = offset.unbind(dim=1), (xx * yy - xy.square()).clamp_min(1e-6)
    xx, yy, xy, around = (v[:, None, None] for v in (xx, yy, xy, around))
    square = (yy * right.square() - 2 * xy * right * down + xx * down.square()) / around
    return Body(
        offset, square / 4, axis, made_of
    )  # a uniform ellipse has a variance of a quarter of its radius' square
