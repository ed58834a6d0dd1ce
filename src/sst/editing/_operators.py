"""How groups become an edit: ``operator.fit(source, target)``, and what most operators share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp

from ._apply import Fitted
from ._matrix import BATCH_SIZE, densify
from ._moments import Moments
from ._product import SPARSE_BELOW, sparse_product, tiles_of


@runtime_checkable
class Operator(Protocol):
    """How to turn cells of one group into cells of another."""

    def summarize(self, X: Any, *, batch_size: int = BATCH_SIZE) -> Any:
        """What :meth:`fit` needs to know of a group, gathered in one pass over its blocks (``None``: nothing)."""

    def fit(self, source: Any, target: Any) -> Fitted:
        """Fit to two groups: matrices (cells x genes) or what :meth:`summarize` returned for them."""


@dataclass(frozen=True)
class LinearMap(Fitted):
    """x -> x M + b, with M p x p (float64) and b of length p (or ``None``)."""

    matrix: np.ndarray
    offset: np.ndarray | None = None

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """One product per block: sparse if there are few non-zeros, else densified, with BLAS."""
        dtype = old.dtype
        if sp.issparse(block) and block.nnz < SPARSE_BELOW * block.shape[0] * block.shape[1]:
            new = sparse_product(block, self._prepared(genes, dtype, tiled=True), old.shape[1])
        else:
            whole = old if genes is None else densify(block, dtype)
            new = whole @ self._prepared(genes, dtype, tiled=False)
        if self.offset is not None:
            new += (self.offset if genes is None else self.offset[genes]).astype(dtype)
        return new

    def _prepared(self, genes: np.ndarray | None, dtype: Any, *, tiled: bool) -> np.ndarray:
        """The columns of the chosen genes in the form and dtype that the product wants; the last one is kept."""
        key = (None if genes is None else genes.tobytes(), np.dtype(dtype).str, tiled)
        kept = self.__dict__.get("_kept")
        if kept is not None and kept[0] == key:
            return kept[1]
        chosen = self.matrix if genes is None else self.matrix[:, genes]
        ready = tiles_of(chosen, dtype) if tiled else np.ascontiguousarray(chosen, dtype=dtype)
        self.__dict__["_kept"] = (key, ready)
        return ready


def moments_of(X: Any, *, name: str, least: int = 2, batch_size: int = BATCH_SIZE) -> Moments:
    """``X`` if it is :class:`Moments`, else its moments; ``ValueError`` for fewer than ``least`` cells."""
    moments = X if isinstance(X, Moments) else Moments.of(X, batch_size=batch_size)
    if moments.n < least:
        msg = f"{name} has {moments.n} cell{'' if moments.n == 1 else 's'}: at least {least} are needed to fit an edit."
        raise ValueError(msg)
    return moments


def check_pair(source: Moments, target: Moments) -> None:
    """Both groups must have the same number of genes."""
    if source.total.shape != target.total.shape:
        msg = f"source has {source.total.shape[0]} genes, target {target.total.shape[0]}: they must be the same."
        raise ValueError(msg)
