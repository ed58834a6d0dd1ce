"""Distance between the leading eigenvalues of two second-moment matrices."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from sst._arguments import checked
from sst._validate import check_range

from ._moments import Moments, as_features


@checked
def d_eig(x: np.ndarray | Moments, y: np.ndarray | Moments, *, k: int = 5) -> float:
    r"""Sum over the ``k`` largest eigenvalues of :math:`(\sqrt{\lambda_a} - \sqrt{\lambda_b})^2`.

    The eigenvalues are those of the second-moment matrices :math:`X^T X / n` of the features, not centred, sorted.

    Parameters
    ----------
    x, y
        Features n x d and m x d (or expression, cells x genes), or :class:`Moments`.
    k
        How many.

    Returns
    -------
    The distance, 0 for equal spectra.

    Raises
    ------
    ValueError
        Other dimensions, ``k`` larger than d, NaN.

    References
    ----------
    Wu and Koelzer (2024), evaluation of expression and features.
    """
    a, b = leading_pair(x, y, k)
    return float(((np.sqrt(a) - np.sqrt(b)) ** 2).sum())


def leading_pair(x: np.ndarray | Moments, y: np.ndarray | Moments, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` largest eigenvalues of both second-moment matrices, descending."""
    sets = []
    for name, value in (("x", x), ("y", y)):
        if isinstance(value, Moments):
            sets.append((value.second_moment, len(value.mean)))
            continue
        features = as_features(value, name)
        n, d = features.shape
        # with fewer samples than dimensions the small product has the same leading eigenvalues
        sets.append(((features @ features.T if n < d else features.T @ features) / n, d))
    if sets[0][1] != sets[1][1]:
        msg = f"x has {sets[0][1]} dimensions, y has {sets[1][1]}."
        raise ValueError(msg)
    check_range("k", k, low=1, high=sets[0][1])
    out = []
    for matrix, _ in sets:
        size = len(matrix)
        values = linalg.eigvalsh(matrix, subset_by_index=(max(0, size - k), size - 1))[::-1]
        out.append(np.pad(np.maximum(values, 0), (0, k - len(values))))
    return out[0], out[1]
