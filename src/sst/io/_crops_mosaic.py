"""Put crops back where they were cut, with feathered seams."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._crops_pixels import cut_windows


def paint_windows(
    crops: Any,
    corners: np.ndarray,
    size: int,
    shape: tuple[int, int],
    *,
    origin: tuple[int, int] = (0, 0),
    base: np.ndarray | None = None,
    feather: float = 8.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint crops at their windows into a picture.

    Where windows overlap, a pixel belongs mostly to the nearest centre: crop i counts with the weight
    ``w_i = e_i exp(-r_i**2 / (2 s**2))``, where ``r_i`` is the distance to the window's centre, ``s = sqrt(feather * size) / 2``, and
    ``e_i`` rises from 0 at the window's edge to 1 ``feather`` px inside it; two centres half a window apart then blend over
    about ``feather`` px. The painted picture is ``sum_i w_i crop_i / sum_i w_i``; it covers what lies beneath with opacity
    ``max_i e_i``.

    Parameters
    ----------
    crops
        n x c x h x w, h = w; resized to ``size`` (bicubic) if need be. Anything that gives an array when indexed by rows.
    corners
        Low corners (x, y) of the windows in px of the image, n x 2 whole numbers.
    size
        Edge of a window in px of the image.
    shape
        Height and width of the picture.
    origin
        (x, y) of the picture's first pixel in the image.
    base
        What lies beneath, c x height x width; black if ``None``.
    feather
        Width of the seams in px, 0 for hard ones.

    Returns
    -------
    The picture, c x height x width ``float32``, and the opacity of what was painted, height x width ``float32``.

    Raises
    ------
    ValueError
        ``base`` has another shape.
    """
    height, width = shape
    channels = crops.shape[1]
    if base is not None and base.shape != (channels, height, width):
        msg = f"base has shape {base.shape}; the crops have {channels} channels and the picture is {height} x {width}."
        raise ValueError(msg)
    edge, near = _weights(size, feather)
    total = np.zeros((channels, height, width))
    weight = np.zeros((height, width))
    cover = np.zeros((height, width))
    local = np.asarray(corners, dtype=np.int64) - np.asarray(origin)
    for i, (x, y) in enumerate(local):
        ya, yb, xa, xb = max(y, 0), min(y + size, height), max(x, 0), min(x + size, width)
        if ya >= yb or xa >= xb:
            continue
        crop = np.asarray(crops[i : i + 1]).astype(np.float32)
        if crop.shape[-1] != size:
            crop = np.stack([cut_windows(c[None], np.zeros((1, 2)), c.shape[-1], size)[0, 0] for c in crop[0]])[None]
        inside = (slice(ya - y, yb - y), slice(xa - x, xb - x))
        there = (slice(ya, yb), slice(xa, xb))
        total[(slice(None), *there)] += near[inside] * crop[0][(slice(None), *inside)]
        weight[there] += near[inside]
        np.maximum(cover[there], edge[inside], out=cover[there])
    painted = total / np.where(weight > 0, weight, 1.0)
    beneath = np.zeros_like(painted) if base is None else base
    return (painted * cover + beneath * (1 - cover)).astype(np.float32), cover.astype(np.float32)


def _weights(size: int, feather: float) -> tuple[np.ndarray, np.ndarray]:
    """Rise from the window's edge, and that times nearness to its centre."""
    i = np.arange(size) + 0.5
    away = np.minimum(i, size - i)
    ramp = np.clip(away / feather, 0, 1) if feather > 0 else np.ones(size)
    edge = np.minimum(ramp[:, None], ramp[None, :])
    middle = i - size / 2
    square = middle[:, None] ** 2 + middle[None, :] ** 2
    spread = max(feather, 0.05) * size / 4  # s squared
    return edge, edge * np.exp(np.maximum(-square / (2 * spread), -600.0))
