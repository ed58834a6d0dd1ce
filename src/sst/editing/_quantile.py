"""Match the distribution of each gene."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from ._apply import Fitted
from ._matrix import BATCH_SIZE, as_rows, iter_rows


@dataclass
class Histograms:
    """For each gene the values that occur, ascending, and how often; grows block by block.

    Memory grows with the number of different values, not with the cells: little for counts.
    """

    n: int
    values: list[np.ndarray] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, X: Any, *, batch_size: int = BATCH_SIZE) -> Histograms:
        """Histograms of all rows of ``X`` (n x p)."""
        X = as_rows(X)
        p = X.shape[1]
        out = cls(0, [np.zeros(0)] * p, [np.zeros(0, dtype=np.int64)] * p)
        for _, block in iter_rows(X, batch_size):
            out.update(block)
        return out

    def update(self, block: Any) -> Histograms:
        """Add a block of cells."""
        n = block.shape[0]
        self.n += n
        csc = block.tocsc() if sp.issparse(block) else None
        for g in range(len(self.values)):
            column = csc.data[csc.indptr[g] : csc.indptr[g + 1]] if csc is not None else np.asarray(block)[:, g]
            values, counts = np.unique(np.asarray(column, dtype=np.float64), return_counts=True)
            if n > len(column):  # the zeros that a sparse column does not store
                values = np.concatenate([values, [0.0]])
                counts = np.concatenate([counts, [n - len(column)]])
            merged = np.concatenate([self.values[g], values])
            self.values[g], where = np.unique(merged, return_inverse=True)
            weights = np.concatenate([self.counts[g], counts])
            self.counts[g] = np.bincount(where, weights=weights).astype(np.int64)
        return self

    @property
    def mean(self) -> np.ndarray:
        """Mean of each gene: p."""
        return np.array([v @ c for v, c in zip(self.values, self.counts, strict=True)]) / max(self.n, 1)

    @property
    def constant(self) -> np.ndarray:
        """Genes that have one value in all cells: p booleans."""
        return np.array([len(v) <= 1 for v in self.values], dtype=bool)

    def __add__(self, other: Histograms) -> Histograms:
        out = Histograms(self.n + other.n)
        for v, w, c, d in zip(self.values, other.values, self.counts, other.counts, strict=True):
            values, where = np.unique(np.concatenate([v, w]), return_inverse=True)
            out.values.append(values)
            out.counts.append(np.bincount(where, weights=np.concatenate([c, d])).astype(np.int64))
        return out


@dataclass(frozen=True)
class MonotoneMaps(Fitted):
    """One increasing, piecewise linear function per gene: knots ``x[g]`` and their images ``y[g]``."""

    x: list[np.ndarray]
    y: list[np.ndarray]

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """Interpolate; beyond the last knot the map goes on with slope 1."""
        new = np.empty_like(old)
        for k, g in enumerate(range(len(self.x)) if genes is None else genes):
            x, y = self.x[g], self.y[g]
            column = old[:, k].astype(np.float64)
            new[:, k] = np.interp(column, x, y) + np.maximum(column - x[-1], 0.0)
        return new


@dataclass(frozen=True)
class Quantile:
    r"""Optimal transport of each gene on its own: values move to the same quantile of the target.

    Counts have ties: a value v that fills the quantiles [a, b] of the source goes to the mean of the target's quantile
    function there, :math:`T(v) = \frac{1}{b-a}\int_a^b F_j^{-1}(u)\,du` (the barycentre of the transport plan). The mean of
    the target is met exactly, the map is deterministic, and cells with equal counts stay equal.
    """

    def summarize(self, X: Any, *, batch_size: int = BATCH_SIZE) -> Histograms:
        """Histograms of a group."""
        return Histograms.of(X, batch_size=batch_size)

    def fit(self, source: Any, target: Any) -> MonotoneMaps:
        """Fit to two groups: matrices (cells x genes), or their :class:`Histograms`."""
        first = source if isinstance(source, Histograms) else Histograms.of(source)
        second = target if isinstance(target, Histograms) else Histograms.of(target)
        for name, group in (("source", first), ("target", second)):
            if group.n < 2:
                msg = f"{name} has {group.n} cell{'' if group.n == 1 else 's'}: at least 2 are needed to fit an edit."
                raise ValueError(msg)
        if len(first.values) != len(second.values):
            msg = f"source has {len(first.values)} genes, target {len(second.values)}: they must be the same."
            raise ValueError(msg)
        images = []
        for counts, values, weights in zip(first.counts, second.values, second.counts, strict=True):
            levels = np.concatenate([[0.0], np.cumsum(weights) / second.n])
            area = np.concatenate([[0.0], np.cumsum(values * weights) / second.n])  # integral of the quantile function
            edges = np.concatenate([[0.0], np.cumsum(counts) / first.n])
            images.append(np.maximum.accumulate(np.diff(np.interp(edges, levels, area)) / np.diff(edges)))
        return MonotoneMaps(first.values, images)
