"""The nucleus at the centre of a small crop: threshold at half height, split from touching neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from skimage.segmentation import watershed

#: What can become of a crop; ``ok`` and ``border`` have a nucleus.
STATUSES = ("ok", "border", "empty", "no_nucleus", "invalid")
# Set on real nuclei and on the simulator together: what is one nucleus and what are two (see `split_at`).
NECK = 0.92
CONVEX = 0.9
BLOB = 0.5  # of the component's depth: the blur at which blobs are looked for

_TARGET = 96  # crops smaller than this are interpolated to at least this many pixels


def scale_of(size: int) -> int:
    """How many grid steps one crop pixel is cut into: areas are resolved to ``1 / scale**2`` of a pixel."""
    return max(1, -(-_TARGET // size))


def smoother(size: int, scale: int) -> np.ndarray:
    """Matrix (``size * scale`` x ``size``) that interpolates (cubic) and smooths (Gaussian) one axis.

    ``B @ image @ B.T`` is the smoothed, finer image: one small matrix product instead of a filter per crop.
    """
    matrix = np.eye(size)
    if scale > 1:
        matrix = ndimage.zoom(matrix, (scale, 1), order=3, mode="nearest", grid_mode=True)
    return ndimage.gaussian_filter1d(matrix, 0.5 * scale if scale > 1 else max(0.8, size / 100), axis=0, mode="nearest")


@dataclass(frozen=True)
class Segmentation:
    """A crop's nucleus on the fine grid, and everything else that is above the threshold."""

    status: str
    nucleus: np.ndarray | None = None
    others: np.ndarray | None = None


def otsu(values: np.ndarray) -> float:
    """Otsu's threshold from a histogram of 256 bins."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return low
    counts, edges = np.histogram(values, bins=256, range=(low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    weight = np.cumsum(counts).astype(float)
    mass = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mass[-1] * weight / weight[-1] - mass) ** 2 / (weight * (weight[-1] - weight))
    return float(centres[int(np.nanargmax(between[:-1]))])


def convexity(mask: np.ndarray) -> float:
    """Area of a mask over that of the convex hull of its pixels' corners (NaN if there is none)."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return float("nan")
    part = mask[rows]
    left = part.argmax(axis=1)
    right = mask.shape[1] - part[:, ::-1].argmax(axis=1)
    # the hull's corners are among the two ends of each row of pixels, at its upper and its lower side
    y = np.concatenate([rows, rows + 1, rows, rows + 1])
    x = np.concatenate([left, left, right, right])
    try:
        return float(np.count_nonzero(mask) / ConvexHull(np.column_stack([y, x])).volume)
    except QhullError:
        return float("nan")


def bounds(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """The box of a mask, widened by ``margin`` as far as the image goes."""
    out = []
    for axis in (1, 0):
        inside = np.flatnonzero(mask.any(axis=axis))
        out.append(slice(max(0, int(inside[0]) - margin), int(inside[-1]) + 1 + margin))
    return out[0], out[1]


def split_at(
    mask: np.ndarray, seed: tuple[int, int], height: np.ndarray, neck: float = NECK, convex: float = CONVEX
) -> np.ndarray:
    """The part of a connected ``mask`` that belongs to ``seed``, cut from neighbours at necks and seams.

    Watershed of the blobs of nuclear size in ``height``, the stain cut off at the plateau (negated Laplacian of Gaussian:
    it sees an outline's waist as well as a darker seam). Two basins stay together when the ridge between them reaches
    ``neck`` of the lower peak, or when together they are ``convex`` (area / area of the hull): that is one nucleus with
    a bumpy outline or coarse chromatin, not two.
    """
    depth = float(ndimage.distance_transform_edt(np.pad(mask, 1)).max())
    sigma = max(1.0, BLOB * depth)
    blobs = np.where(mask, -ndimage.gaussian_laplace(height, sigma, mode="nearest"), -np.inf)
    radius = max(1, round(sigma))
    top = float(blobs.max())
    peaks = (ndimage.maximum_filter(blobs, size=2 * radius + 1) == blobs) & (blobs > 0.2 * top)
    square = np.ones((3, 3), bool)
    markers, n_peaks = ndimage.label(peaks, structure=square)
    if n_peaks < 2:
        return mask
    labels = watershed(-np.where(mask, blobs, 0), markers, mask=mask)
    own = int(labels[seed])
    part, taken = labels == own, {own}
    highest = ndimage.maximum(blobs, labels, index=np.arange(1, n_peaks + 1))
    while True:
        rim = ndimage.binary_dilation(part, structure=square) & ~part & mask
        peak = max(float(highest[k - 1]) for k in taken)
        joined = []
        for k in (int(k) for k in np.unique(labels[rim]) if k > 0):
            theirs = labels == k
            ours = ndimage.binary_dilation(theirs, structure=square) & part
            saddle = min(float(blobs[rim & theirs].max()), float(blobs[ours].max()))
            if saddle >= neck * min(peak, float(highest[k - 1])) or convexity(part | theirs) >= convex:
                joined.append(k)
        if not joined:
            return part
        taken.update(joined)
        part = np.isin(labels, list(taken))


def close_gaps(mask: np.ndarray, radius: float) -> np.ndarray:
    """Fill holes, and bays narrower than twice ``radius``."""
    reached = ndimage.distance_transform_edt(~mask) <= radius
    closed = ndimage.distance_transform_edt(np.pad(reached, 1, mode="edge"))[1:-1, 1:-1] > radius
    return ndimage.binary_fill_holes(closed | mask)


def smooth_outline(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Fill holes and smooth the outline; keeps the area of convex shapes to within their curvature."""
    filled = ndimage.binary_fill_holes(mask)
    return ndimage.gaussian_filter(filled.astype(np.float32), sigma, mode="nearest") > 0.5


def _component(mask: np.ndarray, reach: float) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The component at the centre, or the nearest one within ``reach``; and a point of it near the centre."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return None
    middle = (mask.shape[0] // 2, mask.shape[1] // 2)
    label = labels[middle]
    seed = middle
    if label == 0:
        y, x = np.nonzero(labels)
        far = np.hypot(y - middle[0], x - middle[1])
        nearest = int(far.argmin())
        if far[nearest] > reach:
            return None
        seed = (int(y[nearest]), int(x[nearest]))
        label = labels[seed]
    return labels == label, seed


def segment(smooth: np.ndarray, noise: float, min_fraction: float, reach: float) -> Segmentation:
    """Segment the nucleus at the centre of one smoothed crop on its fine grid.

    The threshold is half way between the background and the nucleus' own plateau, found in three rounds: half height is
    where a blurred edge lies, so areas are unbiased under blur, whatever the brightness of the neighbours.

    Parameters
    ----------
    smooth
        h x w, from :func:`smoother`.
    noise
        Standard deviation of the noise in ``smooth``; a plateau less than 5 of it above the background is no nucleus.
    min_fraction
        Least area, as a fraction of the crop.
    reach
        How far from the centre the nucleus may lie, as a fraction of the crop's side.
    """
    size = min(smooth.shape)
    low = float(np.percentile(smooth, 5))
    middle = (smooth.shape[0] // 2, smooth.shape[1] // 2)
    half = max(1, round(0.12 * size))
    centre = smooth[middle[0] - half : middle[0] + half + 1, middle[1] - half : middle[1] + half + 1]
    if float(smooth.max()) - low < 5 * noise:
        return Segmentation("empty")
    first = otsu(smooth)
    high = float(np.percentile(centre, 80))
    dark = smooth[smooth <= first]
    background = float(np.median(dark)) if dark.size > 0.1 * smooth.size else low
    if high - background < max(5 * noise, 0.1 * (float(smooth.max()) - background)):
        # nothing bright at the centre itself: what Otsu finds near it may still be its nucleus
        high = float(np.percentile(smooth, 99))
        threshold = first
    else:
        threshold = (background + high) / 2
    nucleus: np.ndarray | None = None
    plateau = background
    mask = smooth > threshold
    for _ in range(3):
        mask = smooth > threshold
        found = _component(mask, reach * size)
        if found is None:
            return Segmentation("no_nucleus")
        whole, seed = found
        box = bounds(whole, margin=max(2, round(0.06 * size)))
        # chromatin leaves holes and bays, which would pass for outlines
        part, height = close_gaps(whole[box], 0.03 * size), smooth[box]
        ceiling = background + 1.3 * (float(np.percentile(height[part], 70)) - background)
        inside = (seed[0] - box[0].start, seed[1] - box[1].start)
        nucleus = np.zeros_like(mask)
        nucleus[box] = split_at(part, inside, np.minimum(height, ceiling)) if part[inside] else part
        plateau = float(np.median(smooth[nucleus]))
        outside = smooth[~mask]
        if outside.size > 0.02 * smooth.size:
            background = float(np.percentile(outside, 40))
        new = background + 0.5 * (float(np.percentile(smooth[nucleus], 70)) - background)
        if abs(new - threshold) < 0.01 * max(plateau - background, 1e-9):
            break
        threshold = new
    if nucleus is None or plateau - background < 5 * noise:
        return Segmentation("empty")
    sigma = max(1.0, size / 64)
    box = bounds(nucleus, margin=int(4 * sigma) + 1)
    nucleus[box] = smooth_outline(nucleus[box], sigma)
    labels, count = ndimage.label(nucleus)
    if count == 0:
        return Segmentation("no_nucleus")
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        nucleus = labels == int(sizes.argmax())
    if nucleus.sum() < min_fraction * smooth.size:
        return Segmentation("no_nucleus")
    edge = bool(nucleus[0].any() or nucleus[-1].any() or nucleus[:, 0].any() or nucleus[:, -1].any())
    return Segmentation("border" if edge else "ok", nucleus, mask & ~nucleus)
