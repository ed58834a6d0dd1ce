"""What can be told of a crop by a few smooth numbers."""

from __future__ import annotations

import torch
from torch.nn import functional as F

TRAITS = ("mean", "core", "wide", "narrow", "grain", "power")
AROUND = "around"  # of an editor that knows the neighbours' counts too
CENTRED = ("wide", "narrow", "grain")
OWN, CORE = 0.45, 0.12  # radii, of half the side: of what is mostly the cell's own, and of its core
OUTSIDE = 0.65  # from where on what is seen is mostly its neighbours
LEVELS = (0.35, 0.65)  # of the way from the background to the core: where what is bright ends
DIM, FLAT = 0.004, 1e-6  # of the full range: what keeps logarithms finite


def blur(images: torch.Tensor) -> torch.Tensor:
    """Mean over squares of about a tenth of the side, (B, c, h, w); what it takes away is detail."""
    margin = max(images.shape[2] // 32, 1)
    return F.avg_pool2d(F.pad(images, [margin] * 4, mode="reflect"), 2 * margin + 1, 1)


def _windows(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (h, w) of the middle of the crop and of its core."""
    y, x = ((torch.arange(n, device=images.device, dtype=images.dtype) * 2 + 1) / n - 1 for n in images.shape[2:])
    square = y[:, None].square() + x.square()  # of the distance to the centre
    return (-((square / OWN**2) ** 3)).exp(), (-square / (2 * CORE**2)).exp()


def _around(images: torch.Tensor) -> torch.Tensor:
    """Log of the mean of each channel outside the cell, (B, c)."""
    y, x = ((torch.arange(n, device=images.device, dtype=images.dtype) * 2 + 1) / n - 1 for n in images.shape[2:])
    outside = 1 - (-(((y[:, None].square() + x.square()) / OUTSIDE**2) ** 3)).exp()
    return (_mean(images, outside).clamp_min(0) + DIM).log()


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (values * weight).sum(dim=(2, 3)) / weight.sum(dim=(-2, -1)).clamp_min(1)


def meaningful(images: torch.Tensor, *, around: bool = False) -> torch.Tensor:
    """Share of the crops in which a trait means what it says, (6 c,), with ``around`` (7 c,): size and grain are those of a stain that is brightest in the core."""
    own, core = _windows(images)
    centred = (_mean(images, core) > _mean(images, own)).to(images.dtype).mean(dim=0)
    names = (*TRAITS, AROUND) if around else TRAITS
    return torch.cat([torch.ones_like(centred) if name not in CENTRED else centred for name in names])


def traits(images: torch.Tensor, *, around: bool = False) -> torch.Tensor:
    """Smooth measures of crops, with gradients, without a segmentation: logarithms, so that a change is a factor's.

    Parameters
    ----------
    images
        (B, c, h, w), from 0 to 1, the cell at the centre.
    around
        Measure the surroundings too.

    Returns
    -------
    (B, 6 c): of each channel the mean in the middle of the crop and in its core; the size of what is brighter there than a third and than two
    thirds of the way from the background to the core; the contrast of the detail inside it; the power of the finest detail. All look at the middle alone: farther
    out lie neighbours, whose genes are not the cell's. With ``around`` (B, 7 c): and of each channel the mean out there.
    """
    h, w = images.shape[2:]
    own, core = _windows(images)
    smooth, level = blur(images), _mean(images, core)
    ground = smooth.detach().flatten(2).sort(dim=2).values[..., h * w // 5]
    above = (smooth - ground[..., None, None]) / (level - ground).clamp_min(0.03)[..., None, None]
    wide, narrow = (torch.sigmoid((above - t) / 0.07) * own for t in LEVELS)
    unit = 1024 / (h * w)
    fine = F.avg_pool2d(F.avg_pool2d(F.pad(images, [1] * 4, mode="reflect"), 2, 1), 2, 1)
    return torch.cat(
        [
            (_mean(images, own).clamp_min(0) + DIM).log(),
            (level.clamp_min(0) + 5 * DIM).log(),
            *((region.sum(dim=(2, 3)) * unit + 1).log() for region in (wide, narrow)),
            (_mean((images - smooth).square(), wide) + FLAT).log() / 2 - (level.clamp_min(0) + 5 * DIM).log(),
            (_mean((images - fine).square(), own) + FLAT).log() / 2,
            *([_around(images)] if around else []),
        ],
        dim=1,
    )
