"""Apply fitted edits block by block: any matrix, chosen genes and cells, statistics on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from sst._arguments import checked

from ._block import EditStats, assemble, edit_block
from ._builder import Builder
from ._matrix import BATCH_SIZE, as_rows, columns, is_dask, iter_rows, take_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Options:
    """How edits are applied.

    Attributes
    ----------
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
    sparse_out
        CSR from sparse counts (dense counts always give dense values).
    """

    genes: np.ndarray | Sequence[int] | None = None
    strength: float = 1.0
    clip: bool = True
    dtype: Any = np.float32
    batch_size: int = BATCH_SIZE
    sparse_out: bool = True

    def index(self, p: int) -> np.ndarray | None:
        """Ascending indices of the chosen of ``p`` genes, ``None`` for all."""
        if self.genes is None:
            return None
        index = np.asarray(self.genes)
        if index.ndim != 1 or index.dtype.kind not in "iub":
            msg = f"genes={self.genes!r}: expected indices or booleans, one dimension."
            raise TypeError(msg)
        index = np.flatnonzero(index) if index.dtype == bool else np.unique(index)
        if len(index) == 0 or index[0] < 0 or index[-1] >= p:
            msg = f"genes: expected indices in [0, {p}), at least one, got {np.asarray(self.genes).tolist()[:8]}."
            raise ValueError(msg)
        return None if len(index) == p else index

    def blocks(
        self, X: Any, fitted: Sequence[Fitted], assign: np.ndarray | None, stats: Sequence[EditStats] | None
    ) -> Iterator[tuple[slice, Any, np.ndarray, np.ndarray | None]]:
        """Rows, the block as it was, the chosen genes' edited values (b x k), and which genes these are."""
        X = as_rows(X)
        index = self.index(X.shape[1])
        stats = [EditStats() for _ in fitted] if stats is None else stats
        if not all(hasattr(edit, "values") for edit in fitted):
            msg = f"fitted={fitted!r}: expected edits that are ready, operator.fit(source, target)."
            raise TypeError(msg)
        if len(stats) != len(fitted) or not all(isinstance(one, EditStats) for one in stats):
            msg = f"stats: expected one EditStats for each of the {len(fitted)} edits in fitted."
            raise ValueError(msg)
        if assign is not None and np.shape(assign) != (X.shape[0],):
            msg = f"assign: expected the number of an edit for each of the {X.shape[0]} cells, got shape {np.shape(assign)}."
            raise ValueError(msg)
        for rows, block in iter_rows(X, self.batch_size):
            old = columns(block, index, self.dtype)
            part = None if assign is None else assign[rows]
            numbers = np.arange(rows.start, rows.stop)
            values = edit_block(
                block, numbers, old, fitted, part, genes=index, strength=self.strength, clip=self.clip, stats=stats
            )
            if values.base is not None or (index is None and values is block):
                values = values.copy()
            yield rows, block, values, index

    def stream(
        self,
        X: Any,
        fitted: Sequence[Fitted],
        assign: np.ndarray | None = None,
        *,
        stats: Sequence[EditStats] | None = None,
    ) -> Iterator[tuple[slice, Any]]:
        """See :func:`stream`."""
        for rows, block, values, index in self.blocks(X, fitted, assign, stats):
            whole = block
            if sp.issparse(block) and not self.sparse_out:
                whole = values if index is None else columns(block, None, self.dtype)
            yield rows, assemble(whole, values, index, np.dtype(self.dtype))

    def apply(
        self,
        X: Any,
        fitted: Sequence[Fitted],
        assign: np.ndarray | None = None,
        *,
        stats: Sequence[EditStats] | None = None,
    ) -> Any:
        """See :func:`apply`."""
        X = as_rows(X)
        if is_dask(X):
            if stats is not None:
                for _ in self.blocks(X, fitted, assign, stats):
                    pass
            return self._lazily(X, fitted, assign)
        out: np.ndarray | None = None
        csr = Builder(X.shape, self.dtype)
        for rows, block, values, index in self.blocks(X, fitted, assign, stats):
            if sp.issparse(block) and self.sparse_out:
                csr.add(block, values, index)
                continue
            if out is None:
                out = np.empty(X.shape, dtype=self.dtype)
            if index is None:
                out[rows] = values
            else:
                out[rows] = columns(block, None, self.dtype)
                out[rows, index] = values
        if out is not None:
            return out
        if csr.row:
            return csr.finish()
        sparse = self.sparse_out or not sp.issparse(X)
        return X[:0].astype(self.dtype) if sparse else np.empty(X.shape, dtype=self.dtype)

    def _lazily(self, X: Any, fitted: Sequence[Fitted], assign: np.ndarray | None) -> Any:
        starts = np.concatenate([[0], np.cumsum(X.chunks[0])])

        def one(block: Any, block_info: Any = None) -> Any:
            low = int(starts[block_info[0]["chunk-location"][0]])
            rows = np.arange(low, low + block.shape[0])
            part = None if assign is None else assign[rows]
            return self.apply(block, [Numbered(edit, rows) for edit in fitted], part)

        plain = sp.issparse(X._meta) and not self.sparse_out
        empty = plain or not hasattr(X._meta, "astype")
        meta = np.empty((0, 0), dtype=self.dtype) if empty else X._meta.astype(self.dtype)
        return X.map_blocks(one, dtype=np.dtype(self.dtype), meta=meta)

    def rows(self, X: Any, edit: Fitted, index: np.ndarray) -> np.ndarray:
        """Some rows of ``X`` (ascending), edited: dense float64; they keep their numbers in the whole."""
        return replace(self, dtype=np.float64).apply(take_rows(X, index), [Numbered(edit, index)])


class Fitted(ABC):
    """An edit that is ready to be applied.

    Subclasses give :meth:`values`; everything else (blocks, strength, clipping, chosen genes) is the same for all.
    """

    @abstractmethod
    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """Edited values of the chosen genes, before clipping and strength.

        Parameters
        ----------
        block
            Cells with all genes, b x p, dense or CSR.
        old
            The chosen genes of these cells, b x k, dense, of the dtype to compute in.
        genes
            Indices of the chosen genes (k), ``None`` for all.
        rows
            Numbers of these cells in the whole matrix (b).

        Returns
        -------
        A new b x k array of the dtype of ``old``.
        """

    def apply(
        self,
        X: Any,
        *,
        genes: np.ndarray | Sequence[int] | None = None,
        strength: float = 1.0,
        clip: bool = True,
        dtype: Any = np.float32,
        batch_size: int = BATCH_SIZE,
    ) -> Any:
        """Edit all cells of ``X`` (n x p): dense in, dense out; sparse in, CSR out; dask in, (lazy) dask out.

        The result is ``(1 - strength) X + strength X'``, where X' has the chosen ``genes`` edited, negatives set to 0
        (``clip``), and the values of every other gene as they were, bit by bit (in ``dtype``).
        """
        return Options(genes, strength, clip, dtype, batch_size).apply(X, [self])

    def apply_with_stats(
        self,
        X: Any,
        *,
        genes: np.ndarray | Sequence[int] | None = None,
        strength: float = 1.0,
        clip: bool = True,
        dtype: Any = np.float32,
        batch_size: int = BATCH_SIZE,
    ) -> tuple[Any, EditStats]:
        """:meth:`apply`, and what was clipped and moved. Not lazy: a dask array is computed."""
        stats = EditStats()
        return Options(genes, strength, clip, dtype, batch_size).apply(X, [self], stats=[stats]), stats


class Numbered(Fitted):
    """An edit of some rows of a matrix, which keep their numbers in the whole (another method's layer is looked up by them)."""

    def __init__(self, edit: Fitted, index: np.ndarray) -> None:
        self.edit = edit
        self.index = index

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        return self.edit.values(block, old, genes, self.index[rows])


@checked
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
    genes, strength, clip, dtype, batch_size, sparse_out
        See :class:`Options`.
    stats
        One per edit, added to as the blocks go by.
    """
    options = Options(genes, strength, clip, dtype, batch_size, sparse_out)
    return options.stream(X, fitted, assign, stats=stats)


@checked
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
    of non-zeros the dense array (4 bytes a value) is smaller than CSR (8 bytes a non-zero). With ``stats`` a dask array is
    read once for them.
    """
    options = Options(genes, strength, clip, dtype, batch_size, sparse_out)
    return options.apply(X, fitted, assign, stats=stats)
