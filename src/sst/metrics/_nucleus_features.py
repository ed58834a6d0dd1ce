"""Shape, texture and intensities of the nucleus at the centre of each crop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage

from sst._keys import column_name
from sst._validate import check_range, describe_options

from ._images import as_images
from ._nucleus_segment import STATUSES, Segmentation, bounds, convexity, scale_of, segment, smoother

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CHUNK = 256  # crops a task: small enough that memory stays flat, large enough that a process is worth its while
_SHAPE = (
    "nucleus_area",
    "nucleus_area_px",
    "nucleus_eccentricity",
    "nucleus_solidity",
    "nucleus_texture",
    "nucleus_grain",
    "nucleus_offset_px",
)


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

    The nucleus is segmented on its own stain: cubic interpolation to a finer grid where the crop is small (so that a
    nucleus of 60 pixels is measured to a fraction of one), a threshold half way between background and the nucleus'
    plateau, a watershed that cuts it from neighbours it touches, a smoothed outline.

    Parameters
    ----------
    images
        n x c x h x w, uint8, uint16 or float (a crop with NaN is counted as ``"invalid"``).
    nucleus_channel
        Which channel shows the nucleus.
    channels
        Names of the channels, used in the columns with "-" for "/" (``sst._keys.column_name``: columns of ``obs`` may
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
    Where there is no nucleus its values are NaN; the window's are there unless the crop is invalid.
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


def _frame(
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], names: list[str], pixel_size: float | None, c: int
) -> pd.DataFrame:
    status = np.concatenate([p[0] for p in parts]) if parts else np.zeros(0, np.int8)
    shape = np.concatenate([p[1] for p in parts]) if parts else np.zeros((0, len(_SHAPE)))
    intensity = np.concatenate([p[2] for p in parts]) if parts else np.zeros((0, c, 6))
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
    frame.attrs["counts"] = {name: int((status == code).sum()) for code, name in enumerate(STATUSES)}
    frame.attrs["area_unit"] = "um2" if pixel_size else "px"
    return frame


def _measure(
    images: np.ndarray, masks: np.ndarray | None, options: tuple[int, float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Status (n), shape (n x 7) and intensities (n x c x [nucleus, ring, window] x [mean, total]) of a chunk."""
    channel, ring, reach, min_fraction = options
    n, c, h, w = images.shape
    scale = scale_of(min(h, w)) if masks is None else 1
    rows, cols = smoother(h, scale), smoother(w, scale)
    status = np.full(n, STATUSES.index("invalid"), np.int8)
    shape = np.full((n, len(_SHAPE)), np.nan)
    intensity = np.full((n, c, 6), np.nan)
    gain = float((rows[rows.shape[0] // 2] ** 2).sum() * (cols[cols.shape[0] // 2] ** 2).sum()) ** 0.5
    for i in range(n):
        image = images[i].astype(np.float64)
        if not np.isfinite(image).all():
            continue
        intensity[i, :, 4] = image.mean(axis=(1, 2))
        intensity[i, :, 5] = image.sum(axis=(1, 2))
        stain = image[channel]
        if masks is None:
            noise = max(gain * _noise(stain), 0.4 if images.dtype.kind in "iu" else 1e-9 * float(np.abs(stain).max()))
            found = segment(rows @ stain @ cols.T, noise, min_fraction, reach)
        else:
            found = _given(masks[i] > 0, min_fraction)
        status[i] = STATUSES.index(found.status)
        if found.nucleus is not None and found.others is not None:
            shape[i] = _shape(found.nucleus, stain, scale)
            intensity[i, :, :4] = _intensities(found.nucleus, found.others, image, scale, ring)
    return status, shape, intensity


def _given(mask: np.ndarray, min_fraction: float) -> Segmentation:
    if mask.sum() < max(1.0, min_fraction * mask.size):
        return Segmentation("no_nucleus")
    edge = bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    return Segmentation("border" if edge else "ok", mask, np.zeros_like(mask))


def _noise(stain: np.ndarray) -> float:
    """Standard deviation of the pixel noise, from the median absolute second difference along both axes."""
    if min(stain.shape) < 3:
        return 0.0
    second = [np.abs(np.diff(stain, n=2, axis=axis)).ravel() for axis in (0, 1)]
    return float(np.median(np.concatenate(second))) / (0.6745 * 6**0.5)


def _cover(mask: np.ndarray, scale: int) -> np.ndarray:
    """How much of each pixel a mask on the fine grid covers, 0..1 (h x w)."""
    if scale == 1:
        return mask.astype(float)
    h, w = mask.shape[0] // scale, mask.shape[1] // scale
    return mask.reshape(h, scale, w, scale).mean(axis=(1, 3))


def _shape(nucleus: np.ndarray, stain: np.ndarray, scale: int) -> tuple[float, ...]:
    y, x = np.nonzero(nucleus)
    area = y.size / scale**2
    cy, cx = y.mean(), x.mean()
    # second moments of the pixels as unit squares: + 1/12
    yy, xx, yx = ((y - cy) ** 2).mean() + 1 / 12, ((x - cx) ** 2).mean() + 1 / 12, ((y - cy) * (x - cx)).mean()
    root = float(np.hypot(yy - xx, 2 * yx))
    major, minor = yy + xx + root, max(yy + xx - root, 0.0)
    eccentricity = float(np.sqrt(max(0.0, 1 - minor / major)))
    cover = _cover(nucleus, scale)
    mean = float((cover * stain).sum() / cover.sum())
    spread = float((cover * (stain - mean) ** 2).sum() / cover.sum()) ** 0.5
    inner = cover > 0.99
    grain = np.nan
    if inner.sum() >= 9:
        grain = float(ndimage.laplace(stain, mode="nearest")[inner].std())
    centre = ((nucleus.shape[0] - 1) / 2, (nucleus.shape[1] - 1) / 2)
    offset = float(np.hypot(cy - centre[0], cx - centre[1])) / scale
    texture, grain = (spread / mean, grain / mean) if mean > 0 else (np.nan, np.nan)
    return area, area, eccentricity, convexity(nucleus), texture, grain, offset


def _intensities(nucleus: np.ndarray, others: np.ndarray, image: np.ndarray, scale: int, ring: float) -> np.ndarray:
    """Mean and total of each channel (c x 4) in the nucleus and in the ring around it."""
    box = bounds(nucleus, margin=int(ring * scale) + 2)
    near = np.zeros_like(nucleus)
    near[box] = ndimage.distance_transform_edt(~nucleus[box]) <= ring * scale
    near &= ~nucleus & ~others
    out = np.full((image.shape[0], 4), np.nan)
    for j, mask in enumerate((nucleus, near)):
        cover = _cover(mask, scale)
        weight = cover.sum()
        if weight > 0:
            total = np.tensordot(image, cover, axes=((1, 2), (0, 1)))
            out[:, 2 * j], out[:, 2 * j + 1] = total / weight, total
    return out
