"""Gaussian optimal transport between two groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sst._arguments import checked

from ._matrix import BATCH_SIZE
from ._moments import Moments
from ._operators import LinearMap, check_pair, moments_of
from ._scm import check_square, eigh_descending, polar


@dataclass(frozen=True)
class OT:
    r"""The linear map of least displacement that gives the source the target's second moments (Bures map).

    :math:`T = C_i^{-1/2} (C_i^{1/2} C_j C_i^{1/2})^{1/2} C_i^{-1/2}`, symmetric and positive, so that it has none of the
    freedom of eigenvectors. It is computed as :math:`O_i L_i^{-1/2} Q L_j^{1/2} O_j^\top` with Q the polar factor of
    :math:`L_i^{1/2} O_i^\top O_j L_j^{1/2}`: the same matrix without the square roots of squares, so that the moments are
    met to rounding even if C is nearly singular.

    Parameters
    ----------
    centered
        Match mean and covariance (``x -> (x - m_i) T + m_j``) instead of the second moments about zero.
    rank
        Directions in which the source has less than ``rank`` times its largest eigenvalue are left empty.
    """

    centered: bool = False
    rank: float = 1e-12

    def summarize(self, X: Any, *, batch_size: int = BATCH_SIZE) -> Moments:
        """Moments of a group."""
        return Moments.of(X, batch_size=batch_size)

    def fit(self, source: Any, target: Any) -> LinearMap:
        """Fit to two groups: matrices (cells x genes), or their :class:`Moments`."""
        first, second = moments_of(source, name="source"), moments_of(target, name="target")
        check_pair(first, second)
        if not self.centered:
            return LinearMap(transport_map(first.second, second.second, rank=self.rank))
        matrix = transport_map(first.covariance, second.covariance, rank=self.rank)
        return LinearMap(matrix, second.mean - first.mean @ matrix)


@checked
def transport_map(source: np.ndarray, target: np.ndarray, *, rank: float = 1e-12) -> np.ndarray:
    """The p x p matrix T of :class:`OT` from two second-moment (or covariance) matrices; cells are rows."""
    check_square(source, target)
    li, oi = eigh_descending(source)
    lj, oj = eigh_descending(target)
    filled = li > rank * max(li[0], np.finfo(float).tiny)
    oi, a = oi[:, filled], np.sqrt(li[filled])
    if not filled.any():
        return np.zeros_like(source)
    b = np.sqrt(lj)
    q = polar((oi * a).T @ (oj * b))  # r x p
    return (oi / a) @ q @ (oj * b).T
