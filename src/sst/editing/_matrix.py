"""Counts in whatever form they come: dense, CSR, HDF5/zarr-backed, dask; read in blocks of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import scipy.sparse as sp

from sst._arguments import checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH_SIZE = 2048
"""Rows (cells) densified at a time."""


def is_dask(X: Any) -> bool:
    """Whether ``X`` is a dask array (dask itself is not imported)."""
    return type(X).__module__.split(".")[0] == "dask"


def as_rows(X: Any) -> Any:
    """``X`` as something whose rows slice cheaply: CSR for other sparse formats, one column chunk for dask."""
    if sp.issparse(X) and X.format != "csr":
        return X.tocsr()
    if is_dask(X):
        return X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
    if isinstance(X, (list, tuple)):
        return np.asarray(X)
    return X


@checked
def iter_rows(X: Any, batch_size: int = BATCH_SIZE) -> Iterator[tuple[slice, Any]]:
    """Yield ``(rows, block)``; a block is a dense array or a CSR matrix with sorted indices and no duplicates."""
    n = X.shape[0]
    if is_dask(X):
        start = 0
        for index, rows in enumerate(X.chunks[0]):
            block = as_rows(X.blocks[index].compute())
            for low in range(0, rows, batch_size):
                high = min(low + batch_size, rows)
                yield slice(start + low, start + high), _canonical(block[low:high])
            start += rows
        return
    for low in range(0, n, batch_size):
        high = min(low + batch_size, n)
        yield slice(low, high), _canonical(X[low:high])


@checked
def take_rows(X: Any, rows: np.ndarray | slice, dtype: Any = np.float64) -> np.ndarray:
    """Dense rows of ``X`` (``rows`` ascending): n x p."""
    index = rows if isinstance(rows, slice) else np.asarray(rows)
    if not isinstance(index, slice) and (index.ndim != 1 or index.dtype.kind not in "iub"):
        msg = f"rows: expected row numbers, booleans or a slice, got {type(rows).__name__} of {index.dtype}."
        raise TypeError(msg)
    if not isinstance(index, slice) and index.dtype == bool and len(index) != X.shape[0]:
        msg = f"rows: {len(index)} booleans for {X.shape[0]} rows."
        raise ValueError(msg)
    if (
        not isinstance(index, slice)
        and index.dtype != bool
        and len(index)
        and (index.max() >= X.shape[0] or index.min() < -X.shape[0])
    ):
        msg = f"rows: {index.max()} is no row of {X.shape[0]}."
        raise ValueError(msg)
    block = X[index]
    if is_dask(block):
        block = block.compute()
    return densify(block, dtype)


def densify(block: Any, dtype: Any = np.float32) -> np.ndarray:
    """A C-contiguous dense copy of a block (no copy if it is one of that type already)."""
    if sp.issparse(block):
        return np.ascontiguousarray(block.astype(dtype, copy=False).toarray())
    return np.ascontiguousarray(block, dtype=dtype)


def columns(block: Any, genes: np.ndarray | None, dtype: Any) -> np.ndarray:
    """Dense columns of a block: n x k."""
    return densify(block if genes is None else block[:, genes], dtype)


@checked
def check_counts(X: Any, genes: Sequence[str] | None = None, *, name: str = "X", batch_size: int = BATCH_SIZE) -> None:
    """Raise ``ValueError`` naming the genes that hold NaN, infinite or negative values."""
    for _, block in iter_rows(as_rows(X), batch_size):
        values = block.data if sp.issparse(block) else block
        if values.size == 0 or (np.isfinite(values).all() and values.min() >= 0):
            continue
        where = block.indices if sp.issparse(block) else np.broadcast_to(np.arange(block.shape[1]), block.shape)
        for problem, bad in (("NaN or infinite", ~np.isfinite(values)), ("negative", values < 0)):
            if bad.any():
                found = np.unique(where[bad])
                labels = [str(genes[g]) if genes is not None else f"column {g}" for g in found[:8]]
                more = f" and {len(found) - 8} more" if len(found) > 8 else ""
                msg = f"{name} holds {problem} values in {labels}{more}: edits need counts (finite, >= 0)."
                raise ValueError(msg)


def _canonical(block: Any) -> Any:
    if sp.issparse(block):
        block = block if block.format == "csr" else block.tocsr()
        if not block.has_canonical_format:
            block = block.copy()
            block.sum_duplicates()
        return block
    return np.asarray(block)


@numba.njit(cache=True, nogil=True)
def compress(block: np.ndarray, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray) -> None:
    """Write the non-zeros of a dense block into CSR arrays (``indptr`` is filled already).

    Without a branch, since which values are zero cannot be predicted: each is written, and the place only moves on past
    non-zeros. So ``indices`` and ``data`` need one place more than there are non-zeros.
    """
    for i in range(block.shape[0]):
        at = indptr[i]
        for j in range(block.shape[1]):
            value = block[i, j]
            indices[at] = j
            data[at] = value
            at += value != 0


@numba.njit(cache=True, nogil=True)
def splice(
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    values: np.ndarray,
    genes: np.ndarray,
    out_indptr: np.ndarray,
    out_indices: np.ndarray,
    out_data: np.ndarray,
) -> None:
    """Replace the columns ``genes`` (ascending) of a CSR block by the dense ``values`` (n x k); indices stay sorted.

    The outputs hold room for ``nnz + n k`` entries; what is used ends at ``out_indptr[-1]``.
    """
    k = genes.shape[0]
    at = 0
    out_indptr[0] = 0
    for i in range(indptr.shape[0] - 1):
        g = 0
        for e in range(indptr[i], indptr[i + 1]):
            column = indices[e]
            while g < k and genes[g] < column:
                if values[i, g] != 0:
                    out_indices[at] = genes[g]
                    out_data[at] = values[i, g]
                    at += 1
                g += 1
            if g < k and genes[g] == column:
                continue
            if data[e] != 0:
                out_indices[at] = column
                out_data[at] = data[e]
                at += 1
        while g < k:
            if values[i, g] != 0:
                out_indices[at] = genes[g]
                out_data[at] = values[i, g]
                at += 1
            g += 1
        out_indptr[i + 1] = at


class RowView:
    """Some rows of a matrix, in blocks, without a copy of the whole."""

    def __init__(self, X: Any, index: np.ndarray) -> None:
        self.X = X
        self.index = index
        self.shape = (len(index), X.shape[1])

    def __getitem__(self, rows: slice) -> Any:
        index = self.index[rows]
        if len(index) and index[-1] - index[0] + 1 == len(index):
            return self.X[int(index[0]) : int(index[-1]) + 1]
        return self.X[index]


@checked
def rows_of(X: Any, mask: np.ndarray) -> Any:
    """The rows of ``X`` where ``mask`` holds, read in blocks when they are needed."""
    X = as_rows(X)
    index = np.flatnonzero(mask)
    return X[index] if is_dask(X) else RowView(X, index)
