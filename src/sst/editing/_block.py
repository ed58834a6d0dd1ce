"""One block of cells: edited, counted, put together again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numba
import numpy as np
import scipy.sparse as sp

from ._matrix import compress, splice

if TYPE_CHECKING:
    from collections.abc import Sequence


class Values(Protocol):
    """What a block asks of an edit."""

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """See :meth:`sst.editing.Fitted.values`."""


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


def edit_block(
    block: Any,
    rows: np.ndarray,
    old: np.ndarray,
    fitted: Sequence[Values],
    assign: np.ndarray | None,
    *,
    genes: np.ndarray | None,
    strength: float,
    clip: bool,
    stats: Sequence[EditStats],
) -> np.ndarray:
    """The chosen genes of a block, edited (b x k), from their values as they are.

    ``assign`` (b) gives each cell its edit, -1 for none; ``rows`` (b) are the cells' numbers in the whole matrix.
    """
    n = old.shape[0]
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


def assemble(block: Any, values: np.ndarray, genes: np.ndarray | None, dtype: Any) -> Any:
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
