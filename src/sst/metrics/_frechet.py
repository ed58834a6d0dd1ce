"""Frechet distance between two Gaussians fitted to features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from sst._arguments import checked

from ._moments import Moments, as_features

if TYPE_CHECKING:
    import torch


@checked
def frechet_distance(
    x: np.ndarray | Moments, y: np.ndarray | Moments, *, device: str | torch.device | None = None
) -> float:
    r"""Frechet distance between the Gaussians fitted to two sets of features.

    .. math:: |\mu_1 - \mu_2|^2 + \mathrm{tr}(S_1 + S_2 - 2 (S_1 S_2)^{1/2})

    The trace of the root is the sum of the roots of the eigenvalues of :math:`L^T S_2 L` with :math:`S_1 = L L^T`, a
    symmetric problem: no ``sqrtm``, no complex numbers, exact for singular covariances too. With fewer samples than
    dimensions no d x d matrix is formed: with centred samples :math:`X_i` it is the nuclear norm of :math:`X_1 X_2^T`.

    Parameters
    ----------
    x, y
        Features n x d and m x d, or :class:`Moments` of a stream of them.
    device
        A torch device for the d x d solve (float64), ``None``: numpy.

    Returns
    -------
    The squared distance d^2, as "FID" is reported; at least 0.

    Raises
    ------
    ValueError
        Fewer than two vectors, other dimensions, NaN.

    References
    ----------
    Dowson and Landau, *The Frechet distance between multivariate normal distributions* (1982); Heusel et al. (2017).
    """
    left, right = _Side.of(x, "x"), _Side.of(y, "y")
    if left.mean.shape != right.mean.shape:
        msg = f"x has {left.mean.shape[0]} dimensions, y has {right.mean.shape[0]}."
        raise ValueError(msg)
    shift = float(((left.mean - right.mean) ** 2).sum())
    root = _trace_root(left, right, None if device is None else str(device))
    return max(0.0, shift + left.trace + right.trace - 2 * root)


class _Side:
    """One set: its mean, the trace of its covariance, and the covariance either dense or as centred, scaled samples."""

    def __init__(self, mean: np.ndarray, rows: np.ndarray | None, dense: np.ndarray | None) -> None:
        self.mean, self.rows, self._dense = mean, rows, dense
        source = rows if dense is None else None
        self.trace = (
            float(np.trace(dense)) if dense is not None else float((source**2).sum()) if source is not None else 0
        )

    @classmethod
    def of(cls, x: np.ndarray | Moments, name: str) -> _Side:
        if isinstance(x, Moments):
            return cls(x.mean, None, x.covariance)
        x = as_features(x, name)
        n, d = x.shape
        if n < 2:
            msg = f"{name}: a covariance needs at least 2 rows, got {n}."
            raise ValueError(msg)
        mean = x.mean(axis=0)
        rows = (x - mean) / np.sqrt(n - 1)
        return cls(mean, rows, None) if n < d else cls(mean, None, rows.T @ rows)

    @property
    def dense(self) -> np.ndarray:
        if self._dense is None:
            if self.rows is None:  # pragma: no cover - one of the two is always set
                msg = "no covariance"
                raise ValueError(msg)
            self._dense = self.rows.T @ self.rows
        return self._dense

    def factor(self) -> np.ndarray:
        """A matrix F (d x r) with ``F F^T`` the covariance: samples, or Cholesky with pivots where it is singular."""
        if self.rows is not None:
            return self.rows.T
        try:
            return linalg.cholesky(self.dense, lower=True, check_finite=False)
        except linalg.LinAlgError:
            packed, pivots, rank, _ = lapack.dpstrf(self.dense, lower=1)
            lower = np.tril(packed)[:, :rank]
            factor = np.empty_like(lower)
            factor[pivots - 1] = lower
            return factor


def _trace_root(left: _Side, right: _Side, device: str | None) -> float:
    """``tr (S1 S2)^(1/2)``."""
    if left.rows is not None and right.rows is not None:
        return float(_singular_values(left.rows @ right.rows.T, device).sum())
    # the factor on the side that has one for nothing, or fewer columns
    if right.rows is not None:
        left, right = right, left
    factor = left.factor()
    return _sum_root(factor, right.dense, device)


def _sum_root(factor: np.ndarray, dense: np.ndarray, device: str | None) -> float:
    if device is not None:
        import torch

        f, s = (torch.as_tensor(a, dtype=torch.float64, device=device) for a in (factor, dense))
        values = torch.linalg.eigvalsh(f.T @ s @ f).cpu().numpy()
    elif factor.shape[0] == factor.shape[1] and not np.triu(factor, 1).any():
        # L^T S2 L of a triangular L: the reduction of a generalised eigenproblem does it in a quarter of the arithmetic
        inner, _ = lapack.dsygst(dense, factor, itype=2, lower=1)
        values = linalg.eigvalsh(inner, lower=True, overwrite_a=True, check_finite=False)
    else:
        inner = factor.T @ (dense @ factor)
        values = linalg.eigvalsh(inner, overwrite_a=True, check_finite=False)
    # what is below the rounding error of the largest is the rounding of a zero: its root would count
    values[values < values.max(initial=0.0) * len(values) * np.finfo(float).eps] = 0
    return float(np.sqrt(values).sum())


def _singular_values(a: np.ndarray, device: str | None) -> Any:
    if device is not None:
        import torch

        return torch.linalg.svdvals(torch.as_tensor(a, dtype=torch.float64, device=device)).cpu().numpy()
    return linalg.svdvals(a, overwrite_a=True, check_finite=False)
