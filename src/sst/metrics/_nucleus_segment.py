"""The nucleus at the centre of each of many crops, as an outline around a point inside it: many crops in one pass.

An outline that each ray from the centre crosses once (a star-convex shape), found by dynamic programming over the rays: a
ray ends where the stain falls to half of the nucleus' own plateau, falls and rises again (a seam to a neighbour) or
becomes much brighter than the nucleus (a neighbour above it); neighbouring rays may not differ much. Where that outline
has a waist, seams weigh more, and a neighbour is cut off at the neck. Half height is where a blurred edge lies, so that areas are unbiased under blur, whatever the neighbours' brightness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from scipy import ndimage

#: What can become of a crop; ``ok`` and ``border`` have a nucleus.
STATUSES = ("ok", "border", "empty", "no_nucleus", "invalid")
RAYS = 32  # of an outline
# Set on real nuclei and on the simulator together.
_STEPS = 40  # radii that a ray may end at
_LONGEST = 0.55  # the largest of them, of the crop's side
_BRIGHT = 0.9  # plateaus above the nucleus' own at which the stain is no longer taken for it
_STRIDE = 3  # most steps of radius between neighbouring rays
# Cost of a rise behind a fall (a plateau high), and of a change of radius between neighbouring rays (relative, squared):
# for one nucleus, whose chromatin is no seam, and for what turns out to have a waist.
_LOOSE, _TIGHT = (2.0, 0.15), (10.0, 1.0)
_WAIST = 0.98  # area over hull below which there may be several nuclei
_NECK = 0.8  # squared chord over the area behind it, below which that is a neighbour
_DRIFT = 0.25  # radii that the rays' origin may move towards the outline's centroid
_PLATEAU = 0.77  # quantile of the stain inside the outline that is called its plateau
_ROUNDS = 3
_GRID = 64  # side of the grid that outlines are found on: smaller crops are interpolated, larger ones averaged


@dataclass(frozen=True)
class Outlines:
    """Nuclei of n crops.

    Attributes
    ----------
    status
        n, index into ``STATUSES``.
    centre
        n x 2, row and column of the point that rays start from, in pixels of the crop (pixel i covers [i, i + 1)).
    radii
        n x ``RAYS``, in pixels; NaN where there is no nucleus.
    threshold
        n, half height: what is above it outside the outline belongs to other nuclei.
    sharp
        n, share of the rays that end at an edge of at least half of the nucleus' height.
    """

    status: np.ndarray
    centre: np.ndarray
    radii: np.ndarray
    threshold: np.ndarray
    sharp: np.ndarray


def angles() -> np.ndarray:
    """Directions of the rays, from +x to +y."""
    return np.arange(RAYS) * (2 * np.pi / RAYS)


def smoother(size: int) -> np.ndarray:
    """Matrix (``_GRID`` or a little more x ``size``) that interpolates (cubic) or averages, and smooths, one axis.

    ``B @ image @ B.T`` is the smoothed image on the grid of all outlines: one small matrix product instead of a filter per
    crop.
    """
    scale, blocks = max(1, -(-_GRID // size)), max(1, size // _GRID)
    matrix = np.eye(size)
    if scale > 1:
        matrix = ndimage.zoom(matrix, (scale, 1), order=3, mode="nearest", grid_mode=True)
    matrix = ndimage.gaussian_filter1d(
        matrix, 0.5 * scale if scale > 1 else max(0.8, size / 100), axis=0, mode="nearest"
    )
    return matrix[: size * scale // blocks * blocks].reshape(-1, blocks, size).mean(axis=1)


def noise_of(stains: np.ndarray) -> np.ndarray:
    """Standard deviation of the pixel noise (n), from the median absolute second difference along both axes."""
    if min(stains.shape[1:]) < 3:
        return np.zeros(len(stains))
    second = [np.abs(np.diff(stains, n=2, axis=axis)).reshape(len(stains), -1) for axis in (1, 2)]
    return np.median(np.concatenate(second, axis=1), axis=1) / (0.6745 * 6**0.5)


def _otsu(values: np.ndarray) -> np.ndarray:
    """Otsu's thresholds (n) of sorted values (n x m): the largest variance between what lies below and above."""
    m = values.shape[1]
    mass = np.cumsum(values, axis=1)
    k = np.arange(1, m)
    between = (mass[:, -1:] * (k / m) - mass[:, :-1]) ** 2 / (k * (m - k))
    at = between.argmax(axis=1)
    rows = np.arange(len(values))
    return (values[rows, at] + values[rows, at + 1]) / 2


def outline(stains: np.ndarray, *, floor: float, min_fraction: float, reach: float) -> Outlines:
    """Outline the nucleus at the centre of each crop.

    Parameters
    ----------
    stains
        n x h x w, finite.
    floor
        Least standard deviation of the noise (0.4 for whole numbers: their rounding); a plateau less than 5 of it above
        the background is no nucleus.
    min_fraction
        Least area, as a fraction of the crop.
    reach
        How far from the centre the nucleus may lie, as a fraction of the crop's side.
    """
    n, h, w = stains.shape
    rows, cols = smoother(h), smoother(w)
    fine = rows @ stains @ cols.T
    scale, size = rows.shape[0] / h, min(fine.shape[1:])  # of the grid
    gain = float((rows[rows.shape[0] // 2] ** 2).sum() * (cols[cols.shape[0] // 2] ** 2).sum()) ** 0.5
    noise = np.maximum(gain * noise_of(stains), floor)
    ground, height, threshold, span = _levels(fine, noise)
    centre, far = _seeds(fine, threshold)
    empty, missing = span < 5 * noise, far > reach * size
    steps = (np.arange(_STEPS) + 1) * (_LONGEST * size / _STEPS)
    radii, sharp = np.full((n, RAYS), np.nan), np.zeros(n)
    home = centre.copy()
    live = np.flatnonzero(~empty & ~missing)
    for turn in range(_ROUNDS):
        if not len(live):
            break
        centre[live] = centre[live] if turn == 0 else _follow(home[live], centre[live], radii[live])
        profile = _rays(fine[live], centre[live], steps)
        g, p, t = (v[live, None, None] for v in (ground, height, threshold))
        level = (profile - g) / (p - g)
        found = _refine(profile, _best_ends(level, steps, *_LOOSE), steps, t[:, 0])
        waist = convexity_of(found) < _WAIST
        tight = _refine(profile[waist], _best_ends(level[waist], steps, *_TIGHT), steps, t[waist, 0])
        found[waist] = _cut_neck(tight, level[waist], steps)
        radii[live] = found
        weight = np.where(steps <= found[:, :, None], steps, 0.0)
        height[live] = _weighted_quantile(profile, weight, _PLATEAU)
        ground[live] = _background(profile, found, steps, threshold[live], ground[live])
        threshold[live] = (ground[live] + height[live]) / 2
        sharp[live] = _sharp(profile, found, steps, (height - ground)[live])
        flat = height[live] - ground[live] < 5 * noise[live]
        empty[live[flat]] = True
        live = live[~flat]
    status = _status(radii, centre, fine.shape[1:], min_fraction)
    status[missing] = STATUSES.index("no_nucleus")
    status[empty] = STATUSES.index("empty")
    radii[status > 1] = np.nan
    return Outlines(status, centre / scale, radii / scale, threshold, sharp)


def _levels(fine: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, ...]:
    """Background, the nucleus' plateau, half height, and the range of the stain (each n)."""
    n, every = len(fine), np.arange(len(fine))
    order = np.sort(fine.reshape(n, -1), axis=1)
    m = order.shape[1]
    split = _otsu(order[:, :: max(1, m // 1024)])
    below = (order <= split[:, None]).sum(axis=1)
    low, top = order[:, m // 20], order[:, -1]
    ground = np.where(below > 0.1 * m, order[every, below // 2], low)  # the median of what is dark
    half = max(1, round(0.1 * min(fine.shape[1:])))
    y, x = fine.shape[1] // 2, fine.shape[2] // 2
    height = np.percentile(fine[:, y - half : y + half + 1, x - half : x + half + 1].reshape(n, -1), 80, axis=1)
    # nothing bright at the centre itself: what Otsu finds near it may still be its nucleus
    dim = height - ground < np.maximum(5 * noise, 0.1 * (top - ground))
    threshold = np.where(dim, split, (ground + height) / 2)
    return ground, np.where(dim, order[:, int(0.99 * (m - 1))], height), threshold, top - low


def _status(radii: np.ndarray, centre: np.ndarray, shape: tuple[int, int], min_fraction: float) -> np.ndarray:
    y = centre[:, :1] + radii * np.sin(angles())
    x = centre[:, 1:] + radii * np.cos(angles())
    with np.errstate(invalid="ignore"):
        out = ((y < 1) | (x < 1) | (y > shape[0] - 1) | (x > shape[1] - 1)).any(axis=1)
        small = area_of(radii) < min_fraction * shape[0] * shape[1]
    return np.where(small, STATUSES.index("no_nucleus"), np.where(out, STATUSES.index("border"), 0)).astype(np.int8)


def area_of(radii: np.ndarray) -> np.ndarray:
    """Area inside each outline (n), squared units of the radii."""
    return (radii**2).sum(axis=1) * (np.pi / RAYS)


def convexity_of(radii: np.ndarray) -> np.ndarray:
    """Area inside each outline over that of its convex hull (n); the hull from its support function in 64 directions."""
    x, y = radii * np.cos(angles()), radii * np.sin(angles())
    step = 2 * np.pi / 64
    phi = np.arange(64) * step
    h = (x[:, :, None] * np.cos(phi) + y[:, :, None] * np.sin(phi)).max(axis=1)
    side = (np.roll(h, -1, axis=1) + np.roll(h, 1, axis=1) - 2 * h * np.cos(step)) / np.sin(step)
    hull = 0.5 * (h * side).sum(axis=1)
    return 0.5 * (radii * np.roll(radii, -1, axis=1)).sum(axis=1) * np.sin(2 * np.pi / RAYS) / hull


def _follow(home: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The outlines' centroids, as near to where the rays began as ``_DRIFT`` allows: a neighbour must not draw them away."""
    cubes = np.stack([radii**3 @ np.sin(angles()), radii**3 @ np.cos(angles())], axis=1)
    moved = centre + cubes / (1.5 * (radii**2).sum(axis=1))[:, None] - home
    most = _DRIFT * np.sqrt((radii**2).mean(axis=1))
    return home + moved * np.minimum(1, most / np.maximum(np.hypot(*moved.T), 1e-9))[:, None]


def _background(
    profile: np.ndarray, radii: np.ndarray, steps: np.ndarray, threshold: np.ndarray, before: np.ndarray
) -> np.ndarray:
    """The 40 % quantile of what is neither this nucleus nor another one; as before, where that is next to nothing."""
    dark = (steps > radii[:, :, None] + steps[1]) & (profile < threshold[:, None, None])
    weight = np.where(dark, steps, 0.0)
    level = _weighted_quantile(profile, weight, 0.4)
    return np.where(dark.mean(axis=(1, 2)) > 0.02, level, before)


def _seeds(fine: np.ndarray, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays start (n x 2), and how far that is from the middle: the nearest point above the threshold."""
    n, h, w = fine.shape
    y, x = np.mgrid[:h, :w] + 0.5
    far = np.hypot(y - h / 2, x - w / 2)
    at = np.where(fine > threshold[:, None, None], far, np.inf).reshape(n, -1).argmin(axis=1)
    centre = np.stack([at // w, at % w], axis=1) + 0.5
    distance = np.hypot(centre[:, 0] - h / 2, centre[:, 1] - w / 2)
    distance[fine.reshape(n, -1)[np.arange(n), at] <= threshold] = np.inf
    return centre, distance


def _rays(fine: np.ndarray, centre: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The stain along each ray (n x RAYS x steps), bilinear, the edge's value beyond the edge."""
    out = np.empty((len(fine), RAYS, len(steps)))
    _sample(fine, centre, np.sin(angles()), np.cos(angles()), steps, out)
    return out


@numba.njit(nogil=True, cache=True)
def _sample(
    fine: np.ndarray, centre: np.ndarray, sine: np.ndarray, cosine: np.ndarray, steps: np.ndarray, out: np.ndarray
) -> None:
    n, h, w = fine.shape
    for c in range(n):
        for i in range(len(sine)):
            for s in range(len(steps)):
                y = min(max(centre[c, 0] - 0.5 + sine[i] * steps[s], 0.0), h - 1.001)
                x = min(max(centre[c, 1] - 0.5 + cosine[i] * steps[s], 0.0), w - 1.001)
                row, column = int(y), int(x)
                fy, fx = y - row, x - column
                top = fine[c, row, column] * (1 - fx) + fine[c, row, column + 1] * fx
                bottom = fine[c, row + 1, column] * (1 - fx) + fine[c, row + 1, column + 1] * fx
                out[c, i, s] = top * (1 - fy) + bottom * fy


def _gain(level: np.ndarray, seam: float) -> np.ndarray:
    """What each step of a ray adds to the nucleus; ``level``: 0 is the background, 1 the nucleus' plateau."""
    level = 0.5 * level + 0.25 * (np.roll(level, 1, axis=1) + np.roll(level, -1, axis=1))
    gain = np.where(level < 1, 2 * level - 1, 1 - (level - 1) / _BRIGHT)
    level = np.minimum(level, 1)
    return np.clip(gain, -1, 1) - seam * (level - np.minimum.accumulate(level, axis=2))


def _cut_neck(radii: np.ndarray, level: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Cut a neighbour off along a chord between two rays: the one that is shortest and darkest for what lies behind it."""
    n, every, ray = len(radii), np.arange(len(radii)), np.arange(RAYS)
    x, y = radii * np.cos(angles()), radii * np.sin(angles())
    cross = x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)
    run = np.concatenate([np.zeros((n, 1)), np.cumsum(np.tile(cross, 2), axis=1)], axis=1) / 2
    scores = np.full((n, RAYS // 2, RAYS), np.inf)
    for span in range(2, RAYS // 2):
        xb, yb = np.roll(x, -span, axis=1), np.roll(y, -span, axis=1)
        behind = run[:, ray + span] - run[:, ray] - (x * yb - y * xb) / 2
        own = run[:, RAYS, None] - behind
        bright = np.zeros_like(x)
        for f in (0.25, 0.5, 0.75):
            px, py = x + f * (xb - x), y + f * (yb - y)
            k = np.rint(np.arctan2(py, px) * (RAYS / (2 * np.pi))).astype(np.intp) % RAYS
            s = np.clip(np.rint(np.hypot(py, px) / steps[0]).astype(np.intp) - 1, 0, len(steps) - 1)
            bright += np.clip(level[every[:, None], k, s], 0, 1.2) / 3
        score = ((x - xb) ** 2 + (y - yb) ** 2) * bright**2 / np.minimum(np.maximum(behind, 1e-9), own)
        scores[:, span] = np.where(behind < 0.12 * own, np.inf, score)
    span, first = np.divmod(scores.reshape(n, RAYS // 2 * RAYS).argmin(axis=1), RAYS)
    last = (first + span) % RAYS
    ax, ay, bx, by = x[every, first], y[every, first], x[every, last], y[every, last]
    normal = np.arctan2(ax - bx, by - ay)
    with np.errstate(divide="ignore", invalid="ignore"):
        chord = (ax * np.cos(normal) + ay * np.sin(normal))[:, None] / np.cos(angles() - normal[:, None])
    between = (ray - first[:, None]) % RAYS
    cut = (scores.min(axis=(1, 2)) < _NECK)[:, None] & (between > 0) & (between < span[:, None]) & (chord > 0)
    return np.where(cut, np.minimum(radii, chord), radii)


def _best_ends(level: np.ndarray, steps: np.ndarray, seam: float, bend: float) -> np.ndarray:
    """Step at which each ray ends (n x RAYS): the largest sum of gains, less what bends cost."""
    moves = np.arange(-_STRIDE, _STRIDE + 1)
    log = np.log(steps)
    cost = np.full((len(moves), len(steps)), np.inf)
    for j, move in enumerate(moves):
        k = np.arange(len(steps)) + move
        ok = (k >= 0) & (k < len(steps))
        cost[j, ok] = bend * ((log[k[ok]] - log[ok]) / (2 * np.pi / RAYS)) ** 2
    return _viterbi(np.cumsum(_gain(level, seam), axis=2) * (20 / len(steps)), cost)


@numba.njit(nogil=True, cache=True)
def _viterbi(reward: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Best path through ``reward`` (n x rays x steps), two turns long, of which the middle one is kept."""
    n, rays, steps = reward.shape
    stride = len(cost) // 2
    ends = np.empty((n, rays), np.int64)
    came = np.empty((2 * rays, steps), np.int64)
    best, new = np.empty(steps), np.empty(steps)
    for c in range(n):
        best[:] = reward[c, 0]
        for i in range(1, 2 * rays):
            for s in range(steps):
                top, at = -np.inf, s
                for k in range(max(0, s - stride), min(steps, s + stride + 1)):
                    value = best[k] - cost[k - s + stride, s]
                    if value > top:
                        top, at = value, k
                new[s] = top + reward[c, i % rays, s]
                came[i, s] = at
            best, new = new, best
        at = int(best.argmax())
        for i in range(2 * rays - 1, -1, -1):
            if rays // 2 <= i < rays + rays // 2:
                ends[c, i % rays] = at
            at = int(came[i, at])
    return ends


def _refine(profile: np.ndarray, ends: np.ndarray, steps: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Radii to a fraction of a step: where the stain crosses the threshold beside the ray's end."""
    radii = steps[ends].astype(float)
    step = steps[1] - steps[0]
    for inner in (0, -1, 1):
        a = np.clip(ends + inner, 0, len(steps) - 2)
        first = np.take_along_axis(profile, a[:, :, None], axis=2)[:, :, 0]
        second = np.take_along_axis(profile, a[:, :, None] + 1, axis=2)[:, :, 0]
        falls = (first >= threshold) & (second < threshold)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = steps[a] + step * (first - threshold) / (first - second)
        free = radii == steps[ends]
        radii = np.where(falls & free, at, radii)
    return radii


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> np.ndarray:
    """Quantiles (n) of n x RAYS x steps values, from every other ray and step."""
    n = len(values)
    values, weights = values[:, ::2, ::2].reshape(n, -1), weights[:, ::2, ::2].reshape(n, -1)
    order = np.argsort(values, axis=1)
    total = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    at = np.minimum((total < q * total[:, -1:]).sum(axis=1), values.shape[1] - 1)
    return values[np.arange(n), order[np.arange(n), at]]


def depth_inside(shape: tuple[int, int], centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """How far inside the outline each pixel's middle lies along its ray (n x h x w; negative outside)."""
    h, w = shape
    y = np.arange(h)[None, :, None] + 0.5 - centre[:, :1, None]
    x = np.arange(w)[None, None, :] + 0.5 - centre[:, 1:, None]
    turn = np.arctan2(y, x) * (RAYS / (2 * np.pi)) % RAYS
    k = turn.astype(np.intp) % RAYS
    part = turn - np.floor(turn)
    first = radii[np.arange(len(radii))[:, None, None], k]
    second = radii[np.arange(len(radii))[:, None, None], (k + 1) % RAYS]
    return first * (1 - part) + second * part - np.hypot(y, x)


def _sharp(profile: np.ndarray, radii: np.ndarray, steps: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Share of rays along which the stain falls by half of the nucleus' height within a fifth of the radius or two steps."""
    step = steps[1] - steps[0]
    reach = np.maximum(0.25 * radii, 2 * step)
    inner = np.clip(np.rint((radii - reach) / step).astype(np.intp) - 1, 0, len(steps) - 1)
    outer = np.clip(np.rint((radii + reach) / step).astype(np.intp) - 1, 0, len(steps) - 1)
    a = np.take_along_axis(profile, inner[:, :, None], axis=2)[:, :, 0]
    b = np.take_along_axis(profile, outer[:, :, None], axis=2)[:, :, 0]
    return (a - b > 0.5 * height[:, None]).mean(axis=1)
