"""Apply fitted edits block by block: any matrix, chosen genes and cells, statistics on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import scipy.sparse as sp

from ._builder import Builder
from ._matrix import BATCH_SIZE, as_rows, columns, compress, is_dask, iter_rows, splice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._operators import Fitted


@dataclass
class EditStats:
    """What an edit did, summed over the edited cells and the chosen genes."""

    n_cells: int = 0
    n_values: int = 0  # cells x chosen genes
    n_clipped: int = 0  # values that were below 0
    mass_clipped: float = 0.0  # counts taken out by clipping: sum of -x over x < 0
    mass_kept: float = 0.0  # sum of x over x > 0, before mixing by strength
    squared_displacement: float = 0.0  # sum over cells of |x' - x|^2
    displacement: float = 0.0  # sum over cells of |x' - x|
    total_before: np.ndarray = field(default_factory=lambda: np.zeros(0))  # k
    total_after: np.ndarray = field(default_factory=lambda: np.zeros(0))  # k

    def summary(self) -> dict[str, float | int]:
        """Shares and means: plain numbers."""
        cells, values = max(self.n_cells, 1), max(self.n_values, 1)
        mass = self.mass_clipped + self.mass_kept
        return {
            "n_cells": self.n_cells,
            "clipped_share": self.n_clipped / values,
            "clipped_mass": self.mass_clipped / cells,
            "clipped_mass_share": self.mass_clipped / mass if mass else 0.0,
            "displacement_mean": self.displacement / cells,
            "displacement_rms": float(np.sqrt(self.squared_displacement / cells)),
        }


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
def _finish(
    new: np.ndarray,
    old: np.ndarray,
    strength: float,
    clip: bool,  # noqa: FBT001
    before: np.ndarray,
    after: np.ndarray,
) -> tuple[int, float, float, float, float]:
    """Clip, mix with the old values by strength, in place in ``new``; returns the statistics of the block.

    Sums over the genes of a cell are in the dtype of ``new`` and may be reordered (so that they vectorise); sums over
    cells are in float64. The values themselves are not touched by this.
    """
    kind = new.dtype.type
    zero = kind(0)
    mixed = strength != 1.0
    a, b = kind(1.0 - strength), kind(strength)
    clipped = 0
    lost = 0.0
    kept = 0.0
    squared = 0.0
    moved = 0.0
    for i in range(new.shape[0]):
        row, was = new[i], old[i]
        count = 0
        gone = zero
        stayed = zero
        for j in range(row.shape[0]):
            value = row[j]
            low = min(value, zero)
            count += value < zero
            gone -= low
            stayed += value - low
            if clip:
                row[j] = value - low
        if mixed:
            for j in range(row.shape[0]):
                value = a * was[j] + b * row[j]
                row[j] = max(value, zero) if clip else value
        distance = zero
        for j in range(row.shape[0]):
            step = row[j] - was[j]
            distance += step * step
            before[j] += was[j]
            after[j] += row[j]
        if clip:
            clipped += count
            lost += gone
        kept += stayed
        squared += distance
        moved += np.sqrt(np.float64(distance))
    return clipped, lost, kept, squared, moved


def _edit_block(
    block: Any,
    start: int,
    fitted: Sequence[Fitted],
    assign: np.ndarray | None,
    genes: np.ndarray | None,
    strength: float,
    clip: bool,  # noqa: FBT001
    dtype: Any,
    stats: Sequence[EditStats],
) -> np.ndarray:
    """The chosen genes of a block, edited: b x k. ``assign`` (b) gives each cell its edit, -1 for none."""
    old = columns(block, genes, dtype)
    n = old.shape[0]
    rows = np.arange(start, start + n)
    out = None
    for index, edit in enumerate(fitted):
        here = slice(None) if assign is None else np.flatnonzero(assign == index)
        size = n if assign is None else len(here)  # type: ignore[arg-type]
        if size == 0:
            continue
        whole = size == n
        was = old if whole else old[here]
        new = edit.values(block if whole else block[here], was, genes, rows if whole else rows[here])
        if new is was or not new.flags.writeable or new.dtype != was.dtype:
            new = np.array(new, dtype=was.dtype)
        counted = stats[index]
        if counted.total_before.size == 0:
            counted.total_before = np.zeros(was.shape[1])
            counted.total_after = np.zeros(was.shape[1])
        clipped, lost, kept, squared, moved = _finish(
            new, was, float(strength), clip, counted.total_before, counted.total_after
        )
        counted.n_cells += size
        counted.n_values += new.size
        counted.n_clipped += clipped
        counted.mass_clipped += lost
        counted.mass_kept += kept
        counted.squared_displacement += squared
        counted.displacement += moved
        if whole:
            return new
        out = old.copy() if out is None else out
        out[here] = new
    return old if out is None else out


def _assemble(block: Any, values: np.ndarray, genes: np.ndarray | None, dtype: Any) -> Any:
    """Put edited columns (b x k) back among the others: CSR for a CSR block, else dense."""
    if not sp.issparse(block):
        if genes is None:
            return values
        out = np.array(block, dtype=dtype)
        out[:, genes] = values
        return out
    n, p = block.shape
    if genes is None:
        indptr = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(np.count_nonzero(values, axis=1), out=indptr[1:])
        indices = np.empty(indptr[-1] + 1, dtype=np.int32)
        data = np.empty(indptr[-1] + 1, dtype=dtype)
        compress(values, indptr, indices, data)
        indices, data = indices[:-1], data[:-1]
    else:
        indptr = np.empty(n + 1, dtype=np.int64)
        indices = np.empty(block.nnz + values.size, dtype=np.int32)
        data = np.empty(block.nnz + values.size, dtype=dtype)
        old = block.data.astype(dtype, copy=False)
        splice(block.indptr, block.indices, old, values, genes.astype(np.int32), indptr, indices, data)
        indices, data = indices[: indptr[-1]].copy(), data[: indptr[-1]].copy()
    kind = sp.csr_array if isinstance(block, sp.sparray) else sp.csr_matrix
    out = kind((n, p), dtype=dtype)
    out.indptr, out.indices, out.data = indptr.astype(np.int32), indices, data
    return out


def _gene_index(genes: Any, p: int) -> np.ndarray | None:
    """Ascending indices of the chosen genes, ``None`` for all."""
    if genes is None:
        return None
    index = np.asarray(genes)
    index = np.flatnonzero(index) if index.dtype == bool else np.unique(index)
    if len(index) == 0 or index[0] < 0 or index[-1] >= p:
        msg = f"genes: expected indices in [0, {p}), at least one, got {np.asarray(genes).tolist()[:8]}."
        raise ValueError(msg)
    return None if len(index) == p else index


def stream(
    X: Any,
    fitted: Sequence[Fitted],
    assign: np.ndarray | None = None,
    *,
    genes: np.ndarray | Sequence[int] | None = None,
    strength: float = 1.0,
    clip: bool = True,
    dtype: Any = np.float32,
    batch_size: int = BATCH_SIZE,
    stats: Sequence[EditStats] | None = None,
    sparse_out: bool = True,
) -> Iterator[tuple[slice, Any]]:
    """Yield ``(rows, edited block)``: memory is that of a block and of the edit, however many cells there are.

    Parameters
    ----------
    X
        Cells x genes: dense, sparse, backed or dask.
    fitted
        The edits.
    assign
        For each cell the number of its edit, -1 to keep its values; ``None``: the first edit for all.
    genes
        Indices or mask of the genes to change; ``None`` for all.
    strength
        0 keeps the values, 1 is the whole edit; between (and beyond) on the straight line.
    clip
        Set negatives to 0.
    dtype
        Type computed in and returned.
    batch_size
        Cells per block.
    stats
        One per edit, added to as the blocks go by.
    sparse_out
        CSR blocks from sparse ``X`` (dense ``X`` always gives dense blocks).
    """
    for rows, block, values, index in _edited(X, fitted, assign, genes, strength, clip, dtype, batch_size, stats):
        whole = block
        if sp.issparse(block) and not sparse_out:
            whole = values if index is None else columns(block, None, dtype)
        yield rows, _assemble(whole, values, index, np.dtype(dtype))


def _edited(
    X: Any,
    fitted: Sequence[Fitted],
    assign: np.ndarray | None,
    genes: Any,
    strength: float,
    clip: bool,  # noqa: FBT001
    dtype: Any,
    batch_size: int,
    stats: Sequence[EditStats] | None,
) -> Iterator[tuple[slice, Any, np.ndarray, np.ndarray | None]]:
    """Rows, the block as it was, the chosen genes' edited values (b x k), and which genes these are."""
    X = as_rows(X)
    index = _gene_index(genes, X.shape[1])
    stats = [EditStats() for _ in fitted] if stats is None else stats
    for rows, block in iter_rows(X, batch_size):
        part = None if assign is None else assign[rows]
        values = _edit_block(block, rows.start, fitted, part, index, strength, clip, dtype, stats)
        if values.base is not None or (index is None and values is block):
            values = values.copy()
        yield rows, block, values, index


def apply(
    X: Any,
    fitted: Sequence[Fitted],
    assign: np.ndarray | None = None,
    *,
    genes: np.ndarray | Sequence[int] | None = None,
    strength: float = 1.0,
    clip: bool = True,
    dtype: Any = np.float32,
    batch_size: int = BATCH_SIZE,
    stats: Sequence[EditStats] | None = None,
    sparse_out: bool = True,
) -> Any:
    """All blocks of :func:`stream`, put together: dense to dense, sparse to CSR, dask to dask (lazy).

    ``sparse_out=False`` gives a dense array from sparse ``X``: an edit of all genes leaves few zeros, and beyond one half
    of non-zeros the dense array (4 bytes a value) is smaller than CSR (8 bytes a non-zero).
    """
    X = as_rows(X)
    if is_dask(X):
        return _apply_dask(X, fitted, assign, genes, strength, clip, dtype, batch_size, sparse_out)
    out: np.ndarray | None = None
    csr = Builder(X.shape, dtype)
    for rows, block, values, index in _edited(X, fitted, assign, genes, strength, clip, dtype, batch_size, stats):
        if sp.issparse(block) and sparse_out:
            csr.add(block, values, index)
            continue
        if out is None:
            out = np.empty(X.shape, dtype=dtype)
        if index is None:
            out[rows] = values
        else:
            out[rows] = columns(block, None, dtype)
            out[rows, index] = values
    if out is not None:
        return out
    if csr.row:
        return csr.finish()
    return X[:0].astype(dtype) if sparse_out or not sp.issparse(X) else np.empty(X.shape, dtype=dtype)


def apply_with_stats(
    X: Any,
    fitted: Sequence[Fitted],
    assign: np.ndarray | None = None,
    *,
    genes: np.ndarray | Sequence[int] | None = None,
    strength: float = 1.0,
    clip: bool = True,
    dtype: Any = np.float32,
    batch_size: int = BATCH_SIZE,
) -> tuple[Any, EditStats]:
    """:func:`apply` for one edit, and its statistics (a dask array is computed, block by block)."""
    stats = EditStats()
    if is_dask(X):
        for _ in stream(
            X, fitted, assign, genes=genes, strength=strength, clip=clip, dtype=dtype, batch_size=batch_size,
            stats=[stats],
        ):  # fmt: skip
            pass
        return apply(X, fitted, assign, genes=genes, strength=strength, clip=clip, dtype=dtype), stats
    edited = apply(
        X, fitted, assign, genes=genes, strength=strength, clip=clip, dtype=dtype, batch_size=batch_size, stats=[stats]
    )
    return edited, stats


def _apply_dask(
    X: Any,
    fitted: Sequence[Fitted],
    assign: np.ndarray | None,
    genes: Any,
    strength: float,
    clip: bool,  # noqa: FBT001
    dtype: Any,
    batch_size: int,
    sparse_out: bool,  # noqa: FBT001
) -> Any:
    starts = np.concatenate([[0], np.cumsum(X.chunks[0])])

    def one(block: Any, block_info: Any = None) -> Any:
        low = int(starts[block_info[0]["chunk-location"][0]])
        part = None if assign is None else assign[low : low + block.shape[0]]
        shifted: list[Any] = [_Shifted(edit, low) for edit in fitted]
        return apply(
            block, shifted, part, genes=genes, strength=strength, clip=clip, dtype=dtype, batch_size=batch_size,
            sparse_out=sparse_out,
        )  # fmt: skip

    plain = sp.issparse(X._meta) and not sparse_out
    meta = np.empty((0, 0), dtype=dtype) if plain or not hasattr(X._meta, "astype") else X._meta.astype(dtype)
    return X.map_blocks(one, dtype=np.dtype(dtype), meta=meta)


class _Shifted:
    """A fitted edit that sees row numbers of the whole matrix from inside a dask block."""

    def __init__(self, edit: Fitted, start: int) -> None:
        self.edit = edit
        self.start = start

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        return self.edit.values(block, old, genes, rows + self.start)
