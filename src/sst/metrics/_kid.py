"""Kernel distance: unbiased squared maximum mean discrepancy with a cubic kernel."""

from __future__ import annotations

import numpy as np

from sst._arguments import checked
from sst._validate import check_range

from ._moments import as_features

_BLOCK = 2048


@checked
def kid(
    x: np.ndarray,
    y: np.ndarray,
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef: float = 1.0,
    subset_size: int | None = None,
    n_subsets: int = 100,
    seed: int = 0,
) -> float:
    """Unbiased squared MMD between two sets of features with the kernel ``(gamma x.y + coef)^degree``.

    Parameters
    ----------
    x, y
        Features n x d and m x d.
    degree, gamma, coef
        The kernel; ``gamma=None`` is 1/d.
    subset_size
        ``None``: all pairs, block by block (memory stays flat, time grows as n m). A number: the mean over
        ``n_subsets`` random subsets of that size, as it is often reported.
    n_subsets, seed
        For ``subset_size``.

    Returns
    -------
    The estimate; it is unbiased and therefore can be negative near 0.

    Raises
    ------
    ValueError
        Fewer than two rows, other dimensions, NaN, a subset larger than a set.

    References
    ----------
    Binkowski et al., *Demystifying MMD GANs* (2018).
    """
    x, y = as_features(x, "x"), as_features(y, "y")
    if x.shape[1] != y.shape[1]:
        msg = f"x has {x.shape[1]} dimensions, y has {y.shape[1]}."
        raise ValueError(msg)
    if min(len(x), len(y)) < 2:
        msg = f"kid needs at least 2 rows in each set, got {len(x)} and {len(y)}."
        raise ValueError(msg)
    kernel = (degree, 1 / x.shape[1] if gamma is None else gamma, coef)
    if subset_size is None:
        return _mmd2(x, y, kernel)
    check_range("subset_size", subset_size, low=2, high=min(len(x), len(y)))
    rng = np.random.default_rng(seed)
    values = [
        _mmd2(
            x[rng.choice(len(x), subset_size, replace=False)], y[rng.choice(len(y), subset_size, replace=False)], kernel
        )
        for _ in range(n_subsets)
    ]
    return float(np.mean(values))


def _mmd2(x: np.ndarray, y: np.ndarray, kernel: tuple[int, float, float]) -> float:
    n, m = len(x), len(y)
    own_x = _kernel_sum(x, x, kernel) - _diagonal_sum(x, kernel)
    own_y = _kernel_sum(y, y, kernel) - _diagonal_sum(y, kernel)
    return float(own_x / (n * (n - 1)) + own_y / (m * (m - 1)) - 2 * _kernel_sum(x, y, kernel) / (n * m))


def _kernel_sum(x: np.ndarray, y: np.ndarray, kernel: tuple[int, float, float]) -> float:
    degree, gamma, coef = kernel
    total = 0.0
    for i in range(0, len(x), _BLOCK):
        for j in range(0, len(y), _BLOCK):
            total += float(((gamma * (x[i : i + _BLOCK] @ y[j : j + _BLOCK].T) + coef) ** degree).sum())
    return total


def _diagonal_sum(x: np.ndarray, kernel: tuple[int, float, float]) -> float:
    degree, gamma, coef = kernel
    return float(((gamma * (x**2).sum(axis=1) + coef) ** degree).sum())
