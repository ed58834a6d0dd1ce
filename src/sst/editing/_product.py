"""Product of sparse counts and a dense matrix, in tiles that stay in the cache."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

TILE = 256
"""Columns of the dense matrix per tile: for 1000 genes a tile is 1 MiB in float32, the size of a core's second cache."""
SPARSE_BELOW = 0.25
"""Share of non-zeros below which this beats densifying and BLAS (measured: about a third of BLAS' speed per product)."""


def tiles_of(matrix: np.ndarray, dtype: Any) -> np.ndarray:
    """``matrix`` (p x k) as tiles x p x TILE, padded with zeros."""
    p, k = matrix.shape
    width = min(TILE, k)
    count = -(-k // width)
    padded = np.zeros((p, count * width), dtype=dtype)
    padded[:, :k] = matrix
    return np.ascontiguousarray(padded.reshape(p, count, width).transpose(1, 0, 2))


def sparse_product(block: Any, tiles: np.ndarray, k: int) -> np.ndarray:
    """CSR ``block`` (n x p) times the matrix behind ``tiles``: n x k, dense.

    Each row is summed in the order of its entries whatever the block and the threads, so that results are the same, bit
    by bit, for any of them.
    """
    out = np.empty((block.shape[0], k), dtype=tiles.dtype)
    data = block.data.astype(tiles.dtype, copy=False)
    threads = min(_threads(), -(-block.shape[0] // 256))
    if threads <= 1:
        _multiply(block.indptr, block.indices, data, tiles, out, 0, len(out))
        return out
    cuts = np.linspace(0, len(out), threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        jobs = [
            pool.submit(_multiply, block.indptr, block.indices, data, tiles, out, low, high)
            for low, high in zip(cuts[:-1], cuts[1:], strict=True)
        ]
        for job in jobs:
            job.result()
    return out


def _threads() -> int:
    """Threads to use: numba's number, or OpenMP's where that is set lower."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    most = numba.get_num_threads()
    return min(most, int(limit)) if limit.isdigit() and int(limit) > 0 else most


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _multiply(
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    tiles: np.ndarray,
    out: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Rows ``start`` to ``stop``; four entries at a time, so that the sums are loaded and stored a quarter as often."""
    k = out.shape[1]
    width = tiles.shape[2]
    total = np.empty(width, dtype=out.dtype)
    for t in range(tiles.shape[0]):
        tile = tiles[t]
        low = t * width
        high = min(k, low + width)
        for i in range(start, stop):
            total[:] = 0
            e = indptr[i]
            end = indptr[i + 1]
            while e + 4 <= end:
                a, b, c, d = tile[indices[e]], tile[indices[e + 1]], tile[indices[e + 2]], tile[indices[e + 3]]
                va, vb, vc, vd = data[e], data[e + 1], data[e + 2], data[e + 3]
                for j in range(width):
                    total[j] += (va * a[j] + vb * b[j]) + (vc * c[j] + vd * d[j])
                e += 4
            while e < end:
                a = tile[indices[e]]
                va = data[e]
                for j in range(width):
                    total[j] += va * a[j]
                e += 1
            for j in range(low, high):
                out[i, j] = total[j - low]
