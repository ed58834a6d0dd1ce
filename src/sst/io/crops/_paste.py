"""Crops put back into the picture they were cut from, with feathered seams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._pixels import cut_windows

if TYPE_CHECKING:
    from collections.abc import Mapping


def paste_crops(
    background: np.ndarray, crops: np.ndarray, corners: np.ndarray, size: int, *, feather: float = 0.3
) -> np.ndarray:
    """Put square crops over a picture.

    Parameters
    ----------
    background
        c x y x x, uint8.
    crops
        n x c x h x h, uint8; resized to ``size`` (bicubic).
    corners
        Low corners (x, y) of the windows in px of ``background``, n x 2 whole numbers; windows may reach over its edges.
    size
        Side of a window in px.
    feather
        Width of the seam as a share of half the window: the crop's weight rises from 0 at the window's edge to 1 there.
        0 pastes without a seam.

    Returns
    -------
    c x y x x, uint8. At a pixel under several windows each counts by the fourth power of its closeness to the window's
    centre, so that every cell is drawn from its own crop; pixels under no window keep their value exactly.
    """
    channels, height, width = background.shape
    total = np.zeros((channels, height, width), np.float32)
    weight = np.zeros((height, width), np.float32)
    cover = np.zeros((height, width), np.float32)
    ramp = 1 - np.abs((np.arange(size) + 0.5) / size * 2 - 1)  # 0 at the edges, 1 in the middle
    near = np.minimum(ramp[:, None], ramp[None, :]).astype(np.float32)
    seam = np.ones_like(near) if feather <= 0 else np.clip(near / feather, 0, 1)
    seam = seam * seam * (3 - 2 * seam)
    share = np.maximum(near, 1e-3) ** 4
    origin = np.zeros((1, 2), np.int64)
    for crop, (x, y) in zip(crops, np.asarray(corners, dtype=np.int64), strict=True):
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + size, width), min(y + size, height)
        if x0 >= x1 or y0 >= y1:
            continue
        large = cut_windows(crop, origin, crop.shape[-1], size)[0]
        inner = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        place = (slice(y0, y1), slice(x0, x1))
        total[(slice(None), *place)] += large[(slice(None), *inner)] * share[inner]
        weight[place] += share[inner]
        cover[place] = np.maximum(cover[place], seam[inner])
    seen = weight > 0
    mixed = total / np.where(seen, weight, 1)
    out = background + cover * (mixed - background)
    return np.where(seen, np.clip(np.rint(out), 0, 255), background).astype(np.uint8)


def on_crop_scale(image: np.ndarray, limits: Mapping[str, Any], group: str) -> np.ndarray:
    """A picture c x y x x on the 8-bit scale of rescaled crops: ``uns["crops"]["limits"]``, of one group.

    ``round(255 * (clip(x, low_g, high_g) - shared_low) / (shared_high - shared_low))``, as
    :func:`sst.pp.rescale_intensity` does with the crops (with gains of slides: from ``low_g`` on, times the slide's).
    """
    out = np.empty(image.shape, np.uint8)
    for c in range(len(image)):
        low, high = float(limits["low"][group][c]), float(limits["high"][group][c])
        base, span = float(limits["shared_low"][c]), float(limits["shared_high"][c]) - float(limits["shared_low"][c])
        factor = 255.0 / span if span > 0 else 0.0
        if "gain" in limits:
            base, factor = low, factor * float(limits["gain"][group][c])
        scaled = (np.clip(image[c].astype(np.float64), low, high) - base) * factor
        out[c] = np.clip(np.rint(scaled), 0, 255)
    return out
