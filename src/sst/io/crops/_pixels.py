"""Cut square windows out of an image and resize them (bicubic, antialiased), many at once."""

from __future__ import annotations

import math

import numba
import numpy as np


def resize_weights(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Antialiased bicubic weights of one axis, as a band.

    Keys' cubic kernel with a = -1/2, widened by ``n_in / n_out`` when shrinking, cut at the border and normalised to
    sum 1: what Pillow and ``torch.nn.functional.interpolate(mode="bicubic", antialias=True)`` compute.

    Returns
    -------
    First input index of each output (``n_out``), and its weights (``n_out`` x taps, zeros after the last tap).
    """
    scale = n_in / n_out
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    first = np.zeros(n_out, np.int64)
    weights = np.zeros((n_out, 2 * math.ceil(support) + 1), np.float64)
    for i in range(n_out):
        centre = (i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), n_in)
        t = np.abs((np.arange(low, high) - centre + 0.5) / stretch)
        w = np.where(t < 1, (1.5 * t - 2.5) * t * t + 1, np.where(t < 2, ((-0.5 * t + 2.5) * t - 4) * t + 2, 0.0))
        first[i] = low
        weights[i, : high - low] = w / w.sum()
    taps = int((weights != 0).any(axis=0).nonzero()[0].max()) + 1
    return first, np.ascontiguousarray(weights[:, :taps], dtype=np.float32)


def cut_windows(
    image: np.ndarray, corners: np.ndarray, size: int, output_size: int | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """Cut windows out of an image; what lies outside the image is 0.

    Parameters
    ----------
    image
        c x y x x.
    corners
        Low corners (x, y) of the windows in px of ``image``, n x 2 whole numbers.
    size
        Edge of a window in px.
    output_size
        Edge of the result; if it differs from ``size`` the window is resized (bicubic, antialiased), rounded to the
        nearest integer (halves to even) and kept inside the integer type's range. Else pixels are copied.
    out
        Where to write.

    Returns
    -------
    n x c x output_size x output_size, the type of ``image``.
    """
    output_size = size if output_size is None else output_size
    image = np.ascontiguousarray(image)
    corners = np.ascontiguousarray(corners, dtype=np.int64)
    if out is None:
        out = np.empty((len(corners), image.shape[0], output_size, output_size), image.dtype)
    if output_size == size:
        _cut(image, corners, size, out)
        return out
    first, weights = resize_weights(size, output_size)
    whole = image.dtype.kind in "iu"
    low, high = (np.iinfo(image.dtype).min, np.iinfo(image.dtype).max) if whole else (-np.inf, np.inf)
    _cut_resize(image, corners, size, first, weights, whole, np.float32(low), np.float32(high), out)
    return out


@numba.njit(nogil=True, cache=True)
def _cut(image: np.ndarray, corners: np.ndarray, size: int, out: np.ndarray) -> None:
    channels, height, width = image.shape
    for n in range(len(corners)):
        x0 = corners[n, 0]
        y0 = corners[n, 1]
        xa = min(max(-x0, 0), size)
        xb = max(min(width - x0, size), xa)
        for c in range(channels):
            for i in range(size):
                yi = y0 + i
                if yi < 0 or yi >= height:
                    out[n, c, i, :] = 0
                    continue
                out[n, c, i, :xa] = 0
                out[n, c, i, xa:xb] = image[c, yi, x0 + xa : x0 + xb]
                out[n, c, i, xb:] = 0


@numba.njit(nogil=True, cache=True)
def _cut_resize(
    image: np.ndarray,
    corners: np.ndarray,
    size: int,
    first: np.ndarray,
    weights: np.ndarray,
    whole: bool,  # noqa: FBT001 (compiled: positions only)
    low: np.float32,
    high: np.float32,
    out: np.ndarray,
) -> None:
    channels, height, width = image.shape
    n_out, taps = weights.shape
    # rows of zeros behind for the last outputs' spare taps; 8 columns more so that the rows do not share cache sets
    source = np.zeros((size + taps, size), np.float32)
    turned = np.zeros((size + taps, n_out + 8), np.float32)
    result = np.zeros((n_out, n_out + 8), np.float32)
    block = np.zeros((8, max(size, n_out)), np.float32)
    for n in range(len(corners)):
        x0 = corners[n, 0]
        y0 = corners[n, 1]
        xa = min(max(-x0, 0), size)
        xb = max(min(width - x0, size), xa)
        inside = xa == 0 and xb == size and y0 >= 0 and y0 + size <= height
        for c in range(channels):
            if not inside:
                source[:] = 0
            for i in range(size):
                if 0 <= y0 + i < height:
                    line = image[c, y0 + i, x0 + xa : x0 + xb]
                    into = source[i, xa:xb]
                    for j in range(xb - xa):
                        into[j] = line[j]
            _shrink_and_turn(source, size, first, weights, block, turned)
            _shrink_and_turn(turned, n_out, first, weights, block, result)
            for i in range(n_out):
                if whole:
                    for j in range(n_out):
                        out[n, c, i, j] = min(max(np.rint(result[i, j]), low), high)
                else:
                    for j in range(n_out):
                        out[n, c, i, j] = result[i, j]


@numba.njit(nogil=True, cache=True)
def _shrink_and_turn(
    source: np.ndarray, columns: int, first: np.ndarray, weights: np.ndarray, block: np.ndarray, out: np.ndarray
) -> None:
    """``out[j, o] = sum_k weights[o, k] * source[first[o] + k, j]``: vectorised along j, transposed 8 rows at a time."""
    n_out, taps = weights.shape
    for o0 in range(0, n_out, 8):
        rows = min(8, n_out - o0)
        for q in range(rows):
            f = first[o0 + q]
            row = block[q]
            line = source[f]
            w = weights[o0 + q, 0]
            for j in range(columns):
                row[j] = w * line[j]
            k = 1
            while k + 1 < taps:
                w = weights[o0 + q, k]
                v = weights[o0 + q, k + 1]
                line = source[f + k]
                after = source[f + k + 1]
                for j in range(columns):
                    row[j] += w * line[j] + v * after[j]
                k += 2
            if k < taps:
                w = weights[o0 + q, k]
                line = source[f + k]
                for j in range(columns):
                    row[j] += w * line[j]
        if rows == 8:
            for j in range(columns):
                for q in range(8):
                    out[j, o0 + q] = block[q, j]
        else:
            for j in range(columns):
                for q in range(rows):
                    out[j, o0 + q] = block[q, j]
