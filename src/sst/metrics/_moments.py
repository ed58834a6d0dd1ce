"""Mean and scatter of a stream of feature vectors, without keeping them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


def as_features(x: np.ndarray, name: str = "x") -> np.ndarray:
    """Return ``x`` as a finite n x d float64 array.

    Raises
    ------
    ValueError
        Not two axes, no rows, or NaN / infinite values (their rows are counted in the message).
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0:
        msg = f"{name}: expected features n x d, got shape {x.shape}."
        raise ValueError(msg)
    x = x.astype(np.float64, copy=False)
    bad = int((~np.isfinite(x).all(axis=1)).sum())
    if bad:
        msg = f"{name}: {bad} of {x.shape[0]} rows have NaN or infinite values; leave those cells out first."
        raise ValueError(msg)
    return x


class Moments:
    """Count, mean and scatter matrix of feature vectors, updated batch by batch (Chan's formula) in float64.

    Memory is one d x d matrix, whatever the number of cells. Two parts measured apart are joined with ``+``.

    Attributes
    ----------
    n
        Number of vectors seen.
    mean
        d.
    scatter
        d x d, the sum of ``(x - mean)(x - mean)^T``.
    """

    def __init__(self, x: np.ndarray | None = None) -> None:
        self.n = 0
        self.mean = np.zeros(0)
        self.scatter = np.zeros((0, 0))
        if x is not None:
            self.update(x)

    @classmethod
    def stream(cls, batches: Iterable[np.ndarray]) -> Moments:
        """Moments of all batches."""
        moments = cls()
        for batch in batches:
            moments.update(batch)
        return moments

    def update(self, x: np.ndarray) -> Moments:
        """Add the rows of ``x`` (b x d)."""
        x = as_features(x)
        mean = x.mean(axis=0)
        centred = x - mean
        self._join(x.shape[0], mean, centred.T @ centred)
        return self

    def _join(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if self.n == 0:
            self.n, self.mean, self.scatter = n, mean.copy(), scatter.copy()
            return
        if mean.shape != self.mean.shape:
            msg = f"features have {mean.shape[0]} dimensions, those before had {self.mean.shape[0]}."
            raise ValueError(msg)
        total = self.n + n
        delta = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(delta, delta * (self.n * n / total))
        self.mean = self.mean + delta * (n / total)
        self.n = total

    def __add__(self, other: Moments) -> Moments:
        """The moments of both streams together."""
        out = Moments()
        for part in (self, other):
            if part.n:
                out._join(part.n, part.mean, part.scatter)
        return out

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance, d x d."""
        if self.n < 2:
            msg = f"a covariance needs at least 2 vectors, got {self.n}."
            raise ValueError(msg)
        return self.scatter / (self.n - 1)

    @property
    def second_moment(self) -> np.ndarray:
        """``E[x x^T]``, d x d, not centred."""
        if self.n < 1:
            msg = "no vectors were seen yet."
            raise ValueError(msg)
        return self.scatter / self.n + np.outer(self.mean, self.mean)
