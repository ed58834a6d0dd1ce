"""Count the transcripts that fall into square windows: a counting sort by tile, then one pass per window.

Tiles wholly inside a window are counted untested; in those at its edges every transcript adds the outcome of its test, 0 or 1, which
spares the processor a branch that it cannot foresee. Six bytes a transcript: its place in the tile and its gene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import scipy.sparse as sp

SHIFT = 5  # tiles of 2**5 = 32 px: measured fastest for windows of 96 to 160 px (benchmarks/bench_crops.py)
_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class TileIndex:
    """Transcripts sorted by the tile that they lie in.

    Attributes
    ----------
    starts
        First transcript of each tile, ``rows * columns + 1`` long; tiles run along x first.
    x, y
        Whole-pixel position of each transcript within its tile, ``uint8``.
    gene
        Gene index of each transcript, ``uint16`` if that is enough.
    low
        (x, y) of the corner of the first tile, px.
    rows, columns
        Number of tiles along y and x.
    shift
        log2 of a tile's edge in px, at most 8.
    """

    starts: np.ndarray
    x: np.ndarray
    y: np.ndarray
    gene: np.ndarray
    low: tuple[int, int]
    rows: int
    columns: int
    shift: int


def window_corners(centres: np.ndarray, size: int) -> np.ndarray:
    """Low corners (x, y) of the windows of ``size`` px around ``centres``: ``floor(centre) - size // 2``."""
    return np.floor(np.asarray(centres, dtype=np.float64)).astype(np.int64) - size // 2


def index_transcripts(x: np.ndarray, y: np.ndarray, gene: np.ndarray, *, shift: int = SHIFT) -> TileIndex:
    """Sort transcripts by tile (counting sort, stable).

    Parameters
    ----------
    x, y
        Positions in px, n long; only their floors matter, as windows begin and end at whole pixels.
    gene
        Gene indices, n long.
    shift
        log2 of the tile's edge in px.
    """
    xi = _whole(x)
    yi = _whole(y)
    gi = np.asarray(gene)
    gi = np.ascontiguousarray(gi, dtype=np.uint16 if not len(gi) or gi.max() < 2**16 else np.int32)
    if not len(xi):
        none = np.empty(0, np.uint8)
        return TileIndex(np.zeros(2, np.int64), none, none, none, (0, 0), 1, 1, shift)
    low = (int(xi.min()), int(yi.min()))
    columns = ((int(xi.max()) - low[0]) >> shift) + 1
    rows = ((int(yi.max()) - low[1]) >> shift) + 1
    starts, xs, ys, gs = _sort(xi, yi, gi, low[0], low[1], shift, columns, rows)
    return TileIndex(starts, xs, ys, gs, low, rows, columns, shift)


def count_windows(index: TileIndex, corners: np.ndarray, size: int, n_genes: int) -> sp.csr_matrix:
    """Transcripts of each gene inside each window, exactly.

    A transcript at (x, y) lies in the window with corner (x0, y0) if ``x0 <= x < x0 + size`` and the same for y.

    Parameters
    ----------
    index
        Sorted transcripts.
    corners
        Low corners (x, y) of the windows, n x 2 whole numbers.
    size
        Edge of a window in px.
    n_genes
        Number of genes p.

    Returns
    -------
    Counts, n x p, ``int32``, sorted indices.
    """
    corners = np.ascontiguousarray(corners, dtype=np.int64)
    n = len(corners)
    indptr = np.zeros(n + 1, np.int64)
    indices: list[np.ndarray] = []
    data: list[np.ndarray] = []
    for start in range(0, n, _ROWS_AT_ONCE):
        part = corners[start : start + _ROWS_AT_ONCE]
        args = (index.starts, index.low[0], index.low[1], index.shift, index.columns, index.rows, part, size, n_genes)
        room = _bound(*args)
        j = np.empty(room + 1, np.int32)
        v = np.empty(room + 1, np.int32)
        ends = indptr[start + 1 : start + 1 + len(part)]
        filled = _count(*args, index.x, index.y, index.gene, ends, j, v)
        ends += indptr[start]
        indices.append(j[:filled].copy())
        data.append(v[:filled].copy())
    columns = np.concatenate(indices) if indices else np.empty(0, np.int32)
    values = np.concatenate(data) if data else np.empty(0, np.int32)
    if indptr[-1] < np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    matrix = sp.csr_matrix((values, columns, indptr), shape=(n, n_genes))
    matrix.has_sorted_indices = True
    return matrix


def _whole(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind == "f":
        values = np.floor(values)
    return np.ascontiguousarray(values, dtype=np.int32)


@numba.njit(nogil=True, cache=True)
def _sort(x, y, gene, low_x, low_y, shift, columns, rows):
    n = len(x)
    starts = np.zeros(columns * rows + 1, np.int64)
    for k in range(n):
        starts[((y[k] - low_y) >> shift) * columns + ((x[k] - low_x) >> shift) + 1] += 1
    for t in range(columns * rows):
        starts[t + 1] += starts[t]
    cursor = starts[:-1].copy()
    inside = (1 << shift) - 1
    xs = np.empty(n, np.uint8)
    ys = np.empty(n, np.uint8)
    gs = np.empty(n, gene.dtype)
    for k in range(n):
        xr = x[k] - low_x
        yr = y[k] - low_y
        t = (yr >> shift) * columns + (xr >> shift)
        at = cursor[t]
        cursor[t] = at + 1
        xs[at] = xr & inside
        ys[at] = yr & inside
        gs[at] = gene[k]
    return starts, xs, ys, gs


@numba.njit(nogil=True, cache=True)
def _bound(starts, low_x, low_y, shift, columns, rows, corners, size, n_genes):
    """Upper limit of the number of non-zero counts of all windows."""
    room = 0
    for i in range(len(corners)):
        xa = max(corners[i, 0] - low_x, 0)
        xb = min(corners[i, 0] - low_x + size, columns << shift)
        ya = max(corners[i, 1] - low_y, 0)
        yb = min(corners[i, 1] - low_y + size, rows << shift)
        if xa >= xb or ya >= yb:
            continue
        near = 0
        for row in range(ya >> shift, ((yb - 1) >> shift) + 1):
            near += starts[row * columns + ((xb - 1) >> shift) + 1] - starts[row * columns + (xa >> shift)]
        room += min(near, n_genes)
    return room


@numba.njit(nogil=True, cache=True)
def _add_tested(counts, gene, x, y, start, stop, x_low, x_high, y_low, y_high):
    for k in range(start, stop):
        counts[gene[k]] += (x[k] >= x_low) & (x[k] < x_high) & (y[k] >= y_low) & (y[k] < y_high)


@numba.njit(nogil=True, cache=True)
def _count(starts, low_x, low_y, shift, columns, rows, corners, size, n_genes, x, y, gene, ends, indices, data):
    counts = np.zeros(n_genes, np.int32)
    tile = 1 << shift
    filled = 0
    for i in range(len(corners)):
        xa = max(corners[i, 0] - low_x, 0)
        xb = min(corners[i, 0] - low_x + size, columns << shift)
        ya = max(corners[i, 1] - low_y, 0)
        yb = min(corners[i, 1] - low_y + size, rows << shift)
        if xa >= xb or ya >= yb:
            ends[i] = filled
            continue
        first = xa >> shift
        last = (xb - 1) >> shift
        for row in range(ya >> shift, ((yb - 1) >> shift) + 1):
            base = row * columns
            # what of this row's tiles lies inside, within a tile
            y_low = max(ya - (row << shift), 0)
            y_high = min(yb - (row << shift), tile)
            x_low = xa - (first << shift)
            x_high = min(xb - (first << shift), tile)
            a = starts[base + first + 1]
            _add_tested(counts, gene, x, y, starts[base + first], a, x_low, x_high, y_low, y_high)
            if last > first:
                b = starts[base + last]
                if y_low == 0 and y_high == tile:
                    for k in range(a, b):
                        counts[gene[k]] += 1
                else:
                    for k in range(a, b):
                        counts[gene[k]] += (y[k] >= y_low) & (y[k] < y_high)
                _add_tested(counts, gene, x, y, b, starts[base + last + 1], 0, xb - (last << shift), y_low, y_high)
        for g in range(n_genes):
            value = counts[g]
            indices[filled] = g
            data[filled] = value
            filled += value != 0
            counts[g] = 0
        ends[i] = filled
    return filled
