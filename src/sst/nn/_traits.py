"""What can be told of a crop by a few smooth numbers."""

from __future__ import annotations

import torch
from torch.nn import functional as F

TRAITS = ("mean", "size", "grain", "power")
OWN, NEAR, CORE = (
    0.55,
    0.62,
    0.12,
)  # radii, of half the side: the cell's own share of the crop, its neighbourhood, its core
DIM, FLAT = 0.004, 1e-6  # of the full range: what keeps logarithms finite


def blur(images: torch.Tensor) -> torch.Tensor:
    """Mean over squares of about a tenth of the side, (B, c, h, w); what it takes away is detail."""
    margin = max(images.shape[2] // 32, 1)
    return F.avg_pool2d(F.pad(images, [margin] * 4, mode="reflect"), 2 * margin + 1, 1)


def traits(images: torch.Tensor) -> torch.Tensor:
    """Smooth measures of crops, with gradients, without a segmentation: logarithms, so that a change is a factor's.

    Parameters
    ----------
    images
        (B, c, h, w), from 0 to 1, the cell at the centre.

    Returns
    -------
    (B, 4 c): of each channel the mean in the middle of the crop, where the stain is mostly the cell's own; the size of what is brighter
    there than half way from the background to the centre; the contrast of the detail inside it; the power of the finest detail anywhere.
    """
    h, w = images.shape[2:]
    y, x = ((torch.arange(n, device=images.device, dtype=images.dtype) * 2 + 1) / n - 1 for n in (h, w))
    square = y[:, None].square() + x.square()  # of the distance to the centre
    own, near, core = (
        (-square / OWN**2 * (square / OWN**2).square()).exp(),
        (-((square / NEAR**2).square())).exp(),
        (-square / (2 * CORE**2)).exp(),
    )
    mean, level = ((images * k).sum(dim=(2, 3)) / k.sum() for k in (own, core))
    smooth = blur(images)
    ground = smooth.detach().flatten(2).sort(dim=2).values[..., h * w // 5]
    above = (smooth - ground[..., None, None]) / (level - ground).clamp_min(0.03)[..., None, None]
    inside = torch.sigmoid((above - 0.5) / 0.1) * near
    size = inside.sum(dim=(2, 3))
    detail = ((images - smooth).square() * inside).sum(dim=(2, 3)) / size.clamp_min(1)
    fine = F.avg_pool2d(F.avg_pool2d(F.pad(images, [1] * 4, mode="reflect"), 2, 1), 2, 1)
    power = (images - fine).square().mean(dim=(2, 3))
    scale = 1024 / (h * w)
    return torch.cat(
        [
            (mean.clamp_min(0) + DIM).log(),
            (size * scale + 1).log(),
            (detail + FLAT).log() / 2 - (level.clamp_min(0) + 5 * DIM).log(),
            (power + FLAT).log() / 2,
        ],
        dim=1,
    )
