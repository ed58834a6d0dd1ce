"""What can be told of a crop by a few smooth numbers."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ._precision import full_precision

TRAITS = ("mean", "core", "wide", "narrow", "stretch", "contrast", "power")
AROUND = "around"  # of an editor that knows the neighbours' counts too
CENTRED = ("wide", "narrow", "stretch", "contrast")
OWN, CORE = 0.45, 0.12  # radii, of half the side: of what is mostly the cell's own, and of its core
OUTSIDE = 0.65  # from where on what is seen is mostly its neighbours
WIDE, NARROW, INNER = 0.35, 0.65, 0.8  # of the way from the background to the core: where what is bright ends
FINEST = 32  # pixels a side, of which the power of the finest detail is that: what is finer is the camera's noise
DIM, FLAT = 0.004, 1e-6  # of the full range: what keeps logarithms finite


def blur(images: torch.Tensor, times: int = 1) -> torch.Tensor:
    """Mean over squares of about a tenth of the side, ``times`` as far to all sides, (B, c, h, w); what it takes away is detail."""
    margin = times * max(images.shape[2] // 32, 1)
    rows, columns = (_running_mean(n, margin, images.device).to(images.dtype) for n in images.shape[2:])
    with full_precision(images.device):
        return rows @ images @ columns.t()


def _running_mean(n: int, margin: int, device: torch.device) -> torch.Tensor:
    """Matrix (n, n) of the mean over ``margin`` neighbours on both sides, reflected at the ends: on a CPU half the time of a pooling of squares."""
    at = torch.arange(n, device=device)[:, None] + torch.arange(-margin, margin + 1, device=device)
    at = (n - 1) - ((n - 1) - at.abs()).abs()
    share = torch.full(at.shape, 1 / (2 * margin + 1), device=device)
    return torch.zeros(n, n, device=device).scatter_add_(1, at, share)


def places(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the pixels' centres are, right (h, w) and down (h, w): from -1 to 1."""
    y, x = ((torch.arange(n, device=images.device, dtype=images.dtype) * 2 + 1) / n - 1 for n in images.shape[2:])
    return x.expand(len(y), -1), y[:, None].expand(-1, len(x))


def window(images: torch.Tensor, radius: float = OWN) -> torch.Tensor:
    """Weight (h, w) of the middle of the crop."""
    x, y = places(images)
    return (-(((x.square() + y.square()) / radius**2) ** 3)).exp()


def core_level(images: torch.Tensor) -> torch.Tensor:
    """Mean of each channel in the core, (B, c)."""
    x, y = places(images)
    return _mean(images, (-(x.square() + y.square()) / (2 * CORE**2)).exp())


def _around(images: torch.Tensor) -> torch.Tensor:
    """Log of the mean of each channel outside the cell, (B, c)."""
    return (_mean(images, 1 - window(images, OUTSIDE)).clamp_min(0) + DIM).log()


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (values * weight).sum(dim=(2, 3)) / weight.sum(dim=(-2, -1)).clamp_min(1)


def bright(smooth: torch.Tensor, level: torch.Tensor, end: float, softness: float = 0.07) -> torch.Tensor:
    """Where a smooth image (B, c, h, w) is brighter than ``end`` of the way from its background to the level (B, c) of its core, softly."""
    n = smooth.shape[2] * smooth.shape[3]
    ground = smooth.detach().flatten(2).kthvalue(n // 5 + 1, dim=2).values
    above = (smooth - ground[..., None, None]) / (level - ground).clamp_min(0.03)[..., None, None]
    return torch.sigmoid((above - end) / softness)


def inner(images: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The inside of what is bright at the centre, away from its edge, (B, c, h, w)."""
    return bright(blur(images, 2), level, INNER, 0.04) * window(images)


def moments(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre (B, c, 2) of a weight (B, c, h, w), and its variances right and down and their covariance, (B, c, 3), in halves of the side."""
    x, y = places(weight)
    total = weight.sum(dim=(2, 3)).clamp_min(1e-3)
    to = torch.stack([(weight * v).sum(dim=(2, 3)) / total for v in (x, y)], dim=2)
    dx, dy = (v - to[..., k, None, None] for k, v in enumerate((x, y)))
    found = [(weight * square).sum(dim=(2, 3)) / total for square in (dx * dx, dy * dy, dx * dy)]
    return to, torch.stack(found, dim=2)


def _stretch(weight: torch.Tensor) -> torch.Tensor:
    """Half the log of the ratio of the axes of what is bright, (B, c)."""
    xx, yy, xy = moments(weight)[1].unbind(dim=2)
    ratio = ((xx - yy).square() + 4 * xy.square() + 1e-9).sqrt() / (xx + yy).clamp_min(1e-4)
    return ratio.clamp(max=0.99).atanh() / 2


def contrast(images: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation in a region (B, c, h, w), (B, c) each."""
    middle = _mean(images, inside)
    return middle, (_mean((images - middle[..., None, None]).square(), inside) + FLAT).sqrt()


def meaningful(images: torch.Tensor, *, around: bool = False) -> torch.Tensor:
    """Share of the crops in which a trait means what it says, (7 c,), with ``around`` (8 c,): shape and contrast are those of a stain that is brightest in the core."""
    centred = (core_level(images) > _mean(images, window(images))).to(images.dtype).mean(dim=0)
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
    (B, 7 c): of each channel the mean in the middle of the crop and in its core; the size of what is brighter there than a third and than two
    thirds of the way from the background to the core, and half the log of the ratio of its axes; the contrast inside it (coefficient of variation); the power of the
    finest detail. All look at the middle alone: farther out lie neighbours, whose genes are not the cell's. With ``around`` (B, 8 c): and of each channel the
    mean out there.
    """
    h, w = images.shape[2:]
    own = window(images)
    smooth, level = blur(images), core_level(images)
    wide, narrow = (bright(smooth, level, end) * own for end in (WIDE, NARROW))
    unit = 1024 / (h * w)
    middle, spread = contrast(images, inner(images, level))
    small = F.avg_pool2d(images, max(h // FINEST, 1))
    fine = F.avg_pool2d(F.avg_pool2d(F.pad(small, [1] * 4, mode="reflect"), 2, 1), 2, 1)
    return torch.cat(
        [
            (_mean(images, own).clamp_min(0) + DIM).log(),
            (level.clamp_min(0) + 5 * DIM).log(),
            *((region.sum(dim=(2, 3)) * unit + 1).log() for region in (wide, narrow)),
            _stretch(wide),
            spread.log() - (middle.clamp_min(0) + 5 * DIM).log(),
            (_mean((small - fine).square(), window(small)) + FLAT).log() / 2,
            *([_around(images)] if around else []),
        ],
        dim=1,
    )
