"""Count the transcripts that fall into square windows: a counting sort by tile, then one pass per window.

Tiles wholly inside a window are counted untested; in those at its edges every transcript adds the outcome of its test, 0 or 1, which
spares the processor a branch that it cannot foresee. A transcript is four bytes: its gene and its place in the tile. Windows are
counted in the order of their places, so that what they share stays in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import scipy.sparse as sp

SHIFT = 5  # tiles of 2**5 = 32 px: measured fastest for windows of 96 to 160 px (benchmarks/bench_crops.py)
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class TileIndex:
    """Transcripts sorted by the tile that they lie in.

    Attributes
    ----------
    starts
        First transcript of each tile, ``rows * columns + 1`` long; tiles run along x first.
    packed
        ``gene << 2 * shift | y << shift | x`` of each transcript, x and y its whole pixels within the tile, ``uint32``.
    low
        (x, y) of the corner of the first tile, px.
    rows, columns
        Number of tiles along y and x.
    shift
        log2 of a tile's edge in px.
    """

    starts: np.ndarray
    packed: np.ndarray
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
    gi = np.ascontiguousarray(gene, dtype=np.int32)
    if not len(xi):
        return TileIndex(np.zeros(2, np.int64), np.empty(0, np.uint32), (0, 0), 1, 1, shift)
    if int(gi.max()) >= 1 << (32 - 2 * shift):
        msg = f"gene={int(gi.max())} does not fit beside tiles of {1 << shift} px."
        raise ValueError(msg)
    low = (int(xi.min()), int(yi.min()))
    columns = ((int(xi.max()) - low[0]) >> shift) + 1
    rows = ((int(yi.max()) - low[1]) >> shift) + 1
    starts, packed = _sort(xi, yi, gi, low[0], low[1], shift, columns, rows)
    return TileIndex(starts, packed, low, rows, columns, shift)


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
    order = np.lexsort((corners[:, 0], corners[:, 1] >> 8))
    placed = corners[order]
    lengths = np.zeros(n, np.int64)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    j = v = np.empty(0, np.int32)
    for start in range(0, n, _ROWS_AT_ONCE):
        part = placed[start : start + _ROWS_AT_ONCE]
        args = (index.starts, index.low[0], index.low[1], index.shift, index.columns, index.rows, part, size, n_genes)
        room = _bound(*args) + 1
        if room > len(j):
            j, v = np.empty(room, np.int32), np.empty(room, np.int32)
        filled = _count(*args, index.packed, lengths[start : start + len(part)], j, v)
        parts.append((j[:filled].copy(), v[:filled].copy()))
    indptr = np.zeros(n + 1, np.int64)
    indptr[order + 1] = lengths
    np.cumsum(indptr, out=indptr)
    columns = np.empty(indptr[-1], np.int32)
    values = np.empty(indptr[-1], np.int32)
    for k in reversed(range(len(parts))):
        _place(order[k * _ROWS_AT_ONCE : (k + 1) * _ROWS_AT_ONCE], indptr, *parts.pop(), columns, values)
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
def _sort(
    x: np.ndarray, y: np.ndarray, gene: np.ndarray, low_x: int, low_y: int, shift: int, columns: int, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    n = len(x)
    starts = np.zeros(columns * rows + 1, np.int64)
    for k in range(n):
        starts[((y[k] - low_y) >> shift) * columns + ((x[k] - low_x) >> shift) + 1] += 1
    for t in range(columns * rows):
        starts[t + 1] += starts[t]
    cursor = starts[:-1].copy()
    inside = (1 << shift) - 1
    packed = np.empty(n, np.uint32)
    for k in range(n):
        xr = x[k] - low_x
        yr = y[k] - low_y
        t = (yr >> shift) * columns + (xr >> shift)
        at = cursor[t]
        cursor[t] = at + 1
        packed[at] = (gene[k] << (2 * shift)) | ((yr & inside) << shift) | (xr & inside)
    return starts, packed


@numba.njit(nogil=True, cache=True)
def _bound(
    starts: np.ndarray,
    low_x: int,
    low_y: int,
    shift: int,
    columns: int,
    rows: int,
    corners: np.ndarray,
    size: int,
    n_genes: int,
) -> int:
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
def _add_tested(
    counts: np.ndarray,
    packed: np.ndarray,
    shift: int,
    start: int,
    stop: int,
    x_low: np.int32,
    x_high: np.int32,
    y_low: np.int32,
    y_high: np.int32,
) -> None:
    inside = np.uint32((1 << shift) - 1)
    once, twice = np.uint32(shift), np.uint32(2 * shift)
    for k in range(start, stop):
        v = packed[k]
        x = np.int32(v & inside)
        y = np.int32((v >> once) & inside)
        counts[v >> twice] += (x >= x_low) & (x < x_high) & (y >= y_low) & (y < y_high)


@numba.njit(nogil=True, cache=True)
def _count(
    starts: np.ndarray,
    low_x: int,
    low_y: int,
    shift: int,
    columns: int,
    rows: int,
    corners: np.ndarray,
    size: int,
    n_genes: int,
    packed: np.ndarray,
    lengths: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
) -> int:
    counts = np.zeros(n_genes, np.int32)
    tile = 1 << shift
    inside = np.uint32(tile - 1)
    once, twice = np.uint32(shift), np.uint32(2 * shift)
    filled = 0
    for i in range(len(corners)):
        xa = max(corners[i, 0] - low_x, 0)
        xb = min(corners[i, 0] - low_x + size, columns << shift)
        ya = max(corners[i, 1] - low_y, 0)
        yb = min(corners[i, 1] - low_y + size, rows << shift)
        if xa >= xb or ya >= yb:
            lengths[i] = 0
            continue
        before = filled
        first = xa >> shift
        last = (xb - 1) >> shift
        for row in range(ya >> shift, ((yb - 1) >> shift) + 1):
            base = row * columns
            # what of this row's tiles lies inside, within a tile
            y_low = np.int32(max(ya - (row << shift), 0))
            y_high = np.int32(min(yb - (row << shift), tile))
            x_low = np.int32(xa - (first << shift))
            x_high = np.int32(min(xb - (first << shift), tile))
            a = starts[base + first + 1]
            _add_tested(counts, packed, shift, starts[base + first], a, x_low, x_high, y_low, y_high)
            if last > first:
                b = starts[base + last]
                if y_low == 0 and y_high == tile:
                    for k in range(a, b):
                        counts[packed[k] >> twice] += 1
                else:
                    for k in range(a, b):
                        y = np.int32((packed[k] >> once) & inside)
                        counts[packed[k] >> twice] += (y >= y_low) & (y < y_high)
                x_high = np.int32(xb - (last << shift))
                _add_tested(counts, packed, shift, b, starts[base + last + 1], np.int32(0), x_high, y_low, y_high)
        for g in range(n_genes):
            value = counts[g]
            indices[filled] = g
            data[filled] = value
            filled += value != 0
            counts[g] = 0
        lengths[i] = filled - before
    return filled


@numba.njit(nogil=True, cache=True)
def _place(
    rows: np.ndarray, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, columns: np.ndarray, values: np.ndarray
) -> None:
    """Copy rows that come one behind the other to where they belong."""
    at = 0
    for row in rows:
        low = indptr[row]
        many = indptr[row + 1] - low
        columns[low : low + many] = indices[at : at + many]
        values[low : low + many] = data[at : at + many]
        at += many
