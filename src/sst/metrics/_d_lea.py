"""Relative distance between the leading eigenvalues of two second-moment matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sst._arguments import checked

from ._d_eig import leading_pair

if TYPE_CHECKING:
    from ._moments import Moments


@checked
def d_lea(x: np.ndarray | Moments, y: np.ndarray | Moments, *, k: int = 5) -> float:
    r"""Sum over the ``k`` largest eigenvalues of :math:`((\sqrt{\lambda_a} - \sqrt{\lambda_b}) / \sqrt{\lambda_b})^2`.

    As :func:`d_eig`, each term relative to ``y``'s (the reference's).

    Parameters
    ----------
    x, y
        Features n x d and m x d, or :class:`Moments`; ``y`` is the reference.
    k
        How many.

    Returns
    -------
    The distance; infinite where the reference has an eigenvalue 0 and ``x`` has not.

    Raises
    ------
    ValueError
        As :func:`d_eig`.

    References
    ----------
    Wu and Koelzer (2024), evaluation of expression and features.
    """
    a, b = leading_pair(x, y, k)
    gap, reference = np.sqrt(a) - np.sqrt(b), np.sqrt(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(gap == 0, 0.0, gap / reference)
    return float((terms**2).sum())
