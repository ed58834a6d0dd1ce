"""Shape, texture and intensities of the nucleus at the centre of each crop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from sst._arguments import checked
from sst._keys import column_name
from sst._validate import check_range, describe_options

from ._images import as_images
from ._nucleus_segment import STATUSES, area_of, convexity_of, depth_inside, outline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CHUNK = 256  # crops a task: small enough that memory stays flat, large enough that a process is worth its while
_SHARP = 0.6  # share of an outline that must be an edge, for a nucleus to be trusted
_CONVEX = 0.88
_SHAPE = (
    "nucleus_area",
    "nucleus_area_px",
    "nucleus_eccentricity",
    "nucleus_solidity",
    "nucleus_texture",
    "nucleus_grain",
    "nucleus_offset_px",
)


@checked
def nucleus_features(
    images: np.ndarray,
    *,
    nucleus_channel: int = 0,
    channels: Sequence[str] | None = None,
    pixel_size: float | None = None,
    ring: float | None = None,
    reach: float = 0.25,
    min_area: float | None = None,
    masks: np.ndarray | None = None,
    n_jobs: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Measure the nucleus at the centre of each crop, the ring around it and the whole window.

    The nucleus is outlined on its own stain, to a fraction of a pixel: where each of 32 rays from its middle falls to half
    way between background and the nucleus' plateau, meets a seam or a much brighter neighbour, found for all rays together
    by dynamic programming; then neighbours are cut off at necks. Overlapping nuclei stay doubtful: see ``nucleus_ok``.

    Parameters
    ----------
    images
        n x c x h x w, uint8, uint16 or float (a crop with NaN is counted as ``"invalid"``).
    nucleus_channel
        Which channel shows the nucleus.
    channels
        Names of the channels, used in the columns, with "-" for "/", spaces and the like (``sst._keys.column_name``: columns of ``obs`` may
        not have a slash); ``None``: ``"0"``, ``"1"``, ...
    pixel_size
        Micrometres per pixel; 0 or ``None``: unknown, areas stay in pixels.
    ring
        Width in pixels of the ring around the nucleus (the rim of the cell); ``None``: 1/12 of the crop's side.
        Other nuclei are left out of it.
    reach
        A component that lies off the centre is taken for the nucleus if it comes within this fraction of the side.
    min_area
        Least nuclear area in pixels; ``None``: 1 % of the crop.
    masks
        n x h x w, nuclei found elsewhere (nonzero: the nucleus of the centre cell), measured instead of segmenting.
    n_jobs
        Processes; ``None``: one for few crops, else as many as there are cores; -1: all cores.
    progress
        Called with the number of crops done, after each chunk.

    Returns
    -------
    One row a crop. ``nucleus_area`` (um^2 with ``pixel_size``, else pixels) and ``nucleus_area_px``,
    ``nucleus_eccentricity`` (0 circle .. 1 line, of the ellipse with the same second moments), ``nucleus_solidity``
    (area / area of the convex hull), ``nucleus_texture`` (coefficient of variation of the stain inside),
    ``nucleus_grain`` (standard deviation of the stain's Laplacian inside / its mean: fine texture),
    ``nucleus_offset_px`` (distance of its centroid from the crop's centre); for each channel
    ``<channel>_nucleus_mean``, ``_nucleus_total``, ``_ring_mean``, ``_ring_total``, ``_window_mean``,
    ``_window_total`` in the images' own units; ``nucleus_status``: ``"ok"``, ``"border"`` (it reaches the crop's
    edge), ``"empty"`` (no contrast), ``"no_nucleus"`` (nothing near the centre), ``"invalid"`` (NaN or infinite).
    ``nucleus_ok``: the outline is to be trusted (status ``"ok"``, six tenths of it are an edge of half the nucleus' height
    or more, area / hull above 0.88). Where there is no nucleus its values are NaN; the window's are there unless the crop is invalid.
    ``frame.attrs["counts"]`` has the number of crops of each status.

    Raises
    ------
    ValueError
        Shapes or names that do not fit, ``nucleus_channel`` out of range.
    """
    images = as_images(images)
    n, c, h, w = images.shape
    names = [str(k) for k in range(c)] if channels is None else [column_name(str(k)) for k in channels]
    if len(names) != c:
        msg = f"channels={names!r}: the images have {c} channels."
        raise ValueError(msg)
    if not 0 <= nucleus_channel < c:
        msg = f"nucleus_channel={nucleus_channel!r} is not a channel. {describe_options(range(c))}"
        raise ValueError(msg)
    if masks is not None:
        masks = np.asarray(masks)
        if masks.shape != (n, h, w):
            msg = f"masks: expected {(n, h, w)}, got {masks.shape}."
            raise ValueError(msg)
    check_range("reach", reach, low=0, high=0.5)
    ring_px = min(h, w) / 12 if ring is None else check_range("ring", ring, low=0)
    least = 0.01 * h * w if min_area is None else check_range("min_area", min_area, low=0)
    bounds = [(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
    tasks = [
        (
            images[a:b],
            None if masks is None else masks[a:b],
            (nucleus_channel, float(ring_px), reach, least / (h * w)),
        )
        for a, b in bounds
    ]
    jobs = _jobs(n_jobs, n)
    parts = []
    if jobs == 1:
        results = (_measure(*task) for task in tasks)
    else:
        from joblib import Parallel, delayed

        results = Parallel(n_jobs=jobs, return_as="generator")(delayed(_measure)(*task) for task in tasks)
    for part in results:
        parts.append(part)
        if progress is not None:
            progress(len(part[0]))
    return _frame(parts, names, pixel_size, c)


def _jobs(n_jobs: int | None, n: int) -> int:
    cores = os.cpu_count() or 1
    if n_jobs is None:
        return 1 if n < 4 * _CHUNK else cores
    if n_jobs == 0:
        msg = "n_jobs=0: use 1 or more, or -1 for all cores."
        raise ValueError(msg)
    return cores if n_jobs < 0 else n_jobs


def _frame(parts: Sequence[tuple[np.ndarray, ...]], names: list[str], pixel_size: float | None, c: int) -> pd.DataFrame:
    status = np.concatenate([p[0] for p in parts]) if parts else np.zeros(0, np.int8)
    trust = np.concatenate([p[1] for p in parts]) if parts else np.zeros(0, bool)
    shape = np.concatenate([p[2] for p in parts]) if parts else np.zeros((0, len(_SHAPE)))
    intensity = np.concatenate([p[3] for p in parts]) if parts else np.zeros((0, c, 6))
    frame = pd.DataFrame(shape, columns=list(_SHAPE))
    if pixel_size:
        frame["nucleus_area"] = frame["nucleus_area_px"] * pixel_size**2
    columns = {}
    for k, name in enumerate(names):
        for j, where in enumerate(("nucleus", "ring", "window")):
            columns[f"{name}_{where}_mean"] = intensity[:, k, 2 * j]
            columns[f"{name}_{where}_total"] = intensity[:, k, 2 * j + 1]
    frame = pd.concat([frame, pd.DataFrame(columns)], axis=1)
    frame["nucleus_status"] = pd.Categorical.from_codes(status, categories=list(STATUSES))
    frame["nucleus_ok"] = trust
    frame.attrs["counts"] = {name: int((status == code).sum()) for code, name in enumerate(STATUSES)}
    frame.attrs["area_unit"] = "um2" if pixel_size else "px"
    return frame


def _measure(
    images: np.ndarray, masks: np.ndarray | None, options: tuple[int, float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Status (n), trust (n), shape (n x 7) and intensities (n x c x [nucleus, ring, window] x [mean, total]) of a chunk."""
    channel, ring, reach, min_fraction = options
    n, c, h, w = images.shape
    status = np.full(n, STATUSES.index("invalid"), np.int8)
    trust = np.zeros(n, bool)
    shape = np.full((n, len(_SHAPE)), np.nan)
    intensity = np.full((n, c, 6), np.nan)
    valid = np.flatnonzero(np.isfinite(images).all(axis=(1, 2, 3)) if images.dtype.kind == "f" else np.ones(n, bool))
    if not len(valid):
        return status, trust, shape, intensity
    values = images[valid].astype(np.float64)
    intensity[valid, :, 4], intensity[valid, :, 5] = values.mean(axis=(2, 3)), values.sum(axis=(2, 3))
    stain = values[:, channel]
    if masks is None:
        floor = 0.4 if images.dtype.kind in "iu" else 1e-9 * float(np.abs(stain).max())
        found = outline(stain, floor=floor, min_fraction=min_fraction, reach=reach)
        status[valid] = found.status
        keep = np.flatnonzero(found.status < 2)
        radii, stain, values = found.radii[keep], stain[keep], values[keep]
        depth = depth_inside((h, w), found.centre[keep], radii)
        cover, near = np.clip(depth + 0.5, 0, 1), np.clip(depth + 0.5 + ring, 0, 1)
        others = (stain > found.threshold[keep, None, None]) & (depth < -0.5)
        area, convexity = area_of(radii), convexity_of(radii)
        trust[valid[keep]] = (found.sharp[keep] > _SHARP) & (convexity > _CONVEX) & (found.status[keep] == 0)
    else:
        given = masks[valid] > 0
        keep = np.flatnonzero(given.sum(axis=(1, 2)) >= max(1.0, min_fraction * h * w))
        given, stain, values = given[keep], stain[keep], values[keep]
        edge = given[:, [0, -1]].any(axis=(1, 2)) | given[:, :, [0, -1]].any(axis=(1, 2))
        status[valid] = STATUSES.index("no_nucleus")
        status[valid[keep]] = np.where(edge, STATUSES.index("border"), 0)
        trust[valid[keep]] = ~edge
        cover, others = given.astype(float), np.zeros_like(given)
        near = np.stack([ndimage.distance_transform_edt(~m) <= ring for m in given]) if len(keep) else cover
        area, convexity = cover.sum(axis=(1, 2)), np.array([_convexity(m) for m in given])
    if len(keep):
        shape[valid[keep]] = _shape(cover, stain, area, convexity)
        intensity[valid[keep], :, :2] = _intensities(cover, values)
        intensity[valid[keep], :, 2:4] = _intensities(np.where(others, 0, near * (1 - cover)), values)
    return status, trust, shape, intensity


def _convexity(mask: np.ndarray) -> float:
    """Area of a mask over that of the convex hull of its pixels' corners (NaN if there is none)."""
    y, x = np.nonzero(mask)
    corners = np.concatenate([np.column_stack([y + a, x + b]) for a in (0, 1) for b in (0, 1)])
    try:
        return float(len(y) / ConvexHull(corners).volume)
    except QhullError:
        return float("nan")


def _shape(cover: np.ndarray, stain: np.ndarray, area: np.ndarray, convexity: np.ndarray) -> np.ndarray:
    """Columns ``_SHAPE`` (n x 7) of nuclei that cover a part of each pixel (n x h x w)."""
    h, w = cover.shape[1:]
    y, x = np.arange(h)[:, None] + 0.5, np.arange(w)[None] + 0.5
    total = cover.sum(axis=(1, 2))
    mean_of = lambda values: (cover * values).sum(axis=(1, 2)) / total
    cy, cx = mean_of(y), mean_of(x)
    # second moments of the pixels as unit squares: + 1/12
    yy, xx = mean_of(y**2) - cy**2 + 1 / 12, mean_of(x**2) - cx**2 + 1 / 12
    root = np.hypot(yy - xx, 2 * (mean_of(y * x) - cy * cx))
    eccentricity = np.sqrt(np.clip(1 - np.maximum(yy + xx - root, 0) / (yy + xx + root), 0, 1))
    mean = mean_of(stain)
    spread = np.sqrt(mean_of((stain - mean[:, None, None]) ** 2))
    inner = cover > 0.99
    count = inner.sum(axis=(1, 2))
    grains = np.where(inner, ndimage.laplace(stain, mode="nearest", axes=(1, 2)), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = np.where(inner, grains - (grains.sum(axis=(1, 2)) / count)[:, None, None], 0)
        grain = np.where(count >= 9, np.sqrt((centred**2).sum(axis=(1, 2)) / count), np.nan)
        texture, grain = (np.where(mean > 0, v / mean, np.nan) for v in (spread, grain))
    offset = np.hypot(cy - h / 2, cx - w / 2)
    return np.stack([area, area, eccentricity, convexity, texture, grain, offset], axis=1)


def _intensities(cover: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean and total of each channel (n x c x 2) in a part of each pixel (n x h x w); NaN where that is nothing."""
    weight = cover.sum(axis=(1, 2))[:, None]
    total = np.where(weight > 0, np.einsum("nchw,nhw->nc", images, cover), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([total / weight, total], axis=2)
