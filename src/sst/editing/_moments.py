"""Streaming first and second moments of counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from ._matrix import BATCH_SIZE, as_rows, densify, iter_rows

EXACT = float(2**24)  # integers up to here are exact in float32


@dataclass
class Moments:
    """Number of cells, sum (p) and sum of products (p x p) of a group; grows block by block.

    Memory is p x p whatever the number of cells. For integer counts the sums are exact, so that the result depends
    neither on the order of the cells, nor on the size of the blocks, nor on the threads.
    """

    n: int
    total: np.ndarray  # p
    products: np.ndarray  # p x p, sum of x x^T

    @classmethod
    def empty(cls, p: int) -> Moments:
        """Moments of no cell."""
        return cls(0, np.zeros(p), np.zeros((p, p)))

    @classmethod
    def of(cls, X: Any, *, batch_size: int = BATCH_SIZE) -> Moments:
        """Moments of all rows of ``X`` (n x p; dense, sparse, backed or dask)."""
        X = as_rows(X)
        moments = cls.empty(X.shape[1])
        for _, block in iter_rows(X, batch_size):
            moments.update(block)
        return moments

    def update(self, block: Any) -> Moments:
        """Add a block of cells (n x p)."""
        if block.shape[0] == 0:
            return self
        values = block.data if sp.issparse(block) else np.asarray(block)
        squares = self._sums_of_squares(block)
        # A product of integers in float32 is exact while no sum can pass 2^24 (Cauchy-Schwarz: the diagonal bounds it).
        whole = values.dtype.kind in "iub" or bool((values == np.rint(values)).all())
        dense = densify(block, np.float32 if whole and squares.max(initial=0.0) < EXACT else np.float64)
        self.n += dense.shape[0]
        self.total += dense.sum(axis=0, dtype=np.float64)
        self.products += dense.T @ dense
        return self

    @staticmethod
    def _sums_of_squares(block: Any) -> np.ndarray:
        if sp.issparse(block):
            weights = block.data.astype(np.float64) ** 2
            return np.bincount(block.indices, weights=weights, minlength=block.shape[1])
        return np.square(np.asarray(block), dtype=np.float64).sum(axis=0)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.products + other.products)

    @property
    def mean(self) -> np.ndarray:
        """Mean of each gene: p."""
        return self.total / max(self.n, 1)

    @property
    def second(self) -> np.ndarray:
        """Second-moment matrix G^T G / n, not centred: p x p."""
        return self.products / max(self.n, 1)

    @property
    def covariance(self) -> np.ndarray:
        """Covariance (over n): p x p."""
        mean = self.mean
        return self.second - np.outer(mean, mean)

    @property
    def variance(self) -> np.ndarray:
        """Variance of each gene (over n): p."""
        return np.maximum(np.diagonal(self.products) / max(self.n, 1) - self.mean**2, 0.0)

    @property
    def constant(self) -> np.ndarray:
        """Genes that have one value in all cells: p booleans."""
        return self.variance <= 1e-12 * np.diagonal(self.products) / max(self.n, 1)
