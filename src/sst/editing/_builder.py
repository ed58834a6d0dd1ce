"""A CSR matrix that is made block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from ._matrix import compress, splice


class Builder:
    """A CSR matrix that grows in place, written to directly, so that the peak of memory is that of the result.

    The first block says how much room the result will need. Pages of that room take no memory until they are written;
    what is missing in the end is added in small steps by ``resize``, which moves pages rather than bytes, but writes zeros
    to all that it adds.
    """

    STEP = 1 / 64

    def __init__(self, shape: tuple[int, int], dtype: Any) -> None:
        self.shape = shape
        self.indptr = np.zeros(shape[0] + 1, dtype=np.int64)
        self.data, self.indices = np.empty(0, dtype=dtype), np.empty(0, dtype=np.int32)
        self.row = self.used = 0
        self.kind: type = sp.csr_matrix

    def add(self, block: Any, values: np.ndarray, genes: np.ndarray | None) -> None:
        """Append the rows of a CSR block whose columns ``genes`` (``None``: all) have become ``values``."""
        if self.row == 0:
            self.kind = sp.csr_array if isinstance(block, sp.sparray) else sp.csr_matrix
        n = block.shape[0]
        if genes is None:
            ends = np.zeros(n + 1, dtype=np.int64)
            np.cumsum(np.count_nonzero(values, axis=1), out=ends[1:])
            indices, data = self._room(int(ends[-1]) + 1, n)
            compress(values, ends, indices, data)
        else:
            ends = np.empty(n + 1, dtype=np.int64)
            indices, data = self._room(block.nnz + values.size, n)
            old = block.data.astype(data.dtype, copy=False)
            splice(block.indptr, block.indices, old, values, genes.astype(np.int32), ends, indices, data)
        self.indptr[self.row + 1 : self.row + n + 1] = ends[1:] + self.used
        self.row += n
        self.used += int(ends[-1])

    def _room(self, need: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Unused ends of ``indices`` and ``data``, at least ``need`` long, for the next ``rows`` cells."""
        end = self.used + need
        if end > len(self.data):
            if self.used == 0:  # if the rest is like this block
                room = max(end, int(need / rows * self.shape[0]) + 1)
                self.data, self.indices = np.empty(room, self.data.dtype), np.empty(room, np.int32)
            else:
                alike = int(end / (self.row + rows) * self.shape[0]) + 1  # if the rest is like the blocks so far
                room = max(alike, end + int(self.STEP * end))
                self.data.resize(room, refcheck=False)
                self.indices.resize(room, refcheck=False)
        return self.indices[self.used :], self.data[self.used :]

    def finish(self) -> Any:
        """The matrix."""
        self.data.resize(self.used, refcheck=False)
        self.indices.resize(self.used, refcheck=False)
        out = self.kind(self.shape, dtype=self.data.dtype)
        wide = self.used >= 2**31  # scipy wants one type of index
        out.indptr = self.indptr if wide else self.indptr.astype(np.int32)
        out.indices = self.indices.astype(np.int64) if wide else self.indices
        out.data = self.data
        return out
