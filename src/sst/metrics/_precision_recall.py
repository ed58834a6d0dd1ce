"""Precision and recall of generated features by k nearest neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sst._arguments import checked
from sst._validate import check_range

from ._moments import as_features

_BLOCK = 1024


class PrecisionRecall(NamedTuple):
    """Fractions in 0..1."""

    precision: float
    recall: float


@checked
def precision_recall(x: np.ndarray, y: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """How much of ``y`` (generated) lies where ``x`` (real) is, and how much of ``x`` where ``y`` is.

    Each set covers the balls around its points that reach to their ``k``-th nearest neighbour. Precision is the
    fraction of ``y`` inside the cover of ``x``, recall that of ``x`` inside the cover of ``y``.

    Parameters
    ----------
    x, y
        Real features n x d and generated features m x d.
    k
        Neighbours, the point itself not counted.

    Returns
    -------
    A named tuple ``(precision, recall)``.

    Raises
    ------
    ValueError
        ``k`` not below the size of a set, other dimensions, NaN.

    References
    ----------
    Kynkaanniemi et al., *Improved precision and recall metric for assessing generative models* (2019).
    """
    x, y = as_features(x, "x"), as_features(y, "y")
    if x.shape[1] != y.shape[1]:
        msg = f"x has {x.shape[1]} dimensions, y has {y.shape[1]}."
        raise ValueError(msg)
    check_range("k", k, low=1, high=min(len(x), len(y)) - 1)
    return PrecisionRecall(_covered(y, x, _radii(x, k)), _covered(x, y, _radii(y, k)))


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances, i x j."""
    out = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * (a @ b.T)
    return np.maximum(out, 0, out=out)


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each point to its k-th nearest neighbour."""
    out = np.empty(len(x))
    for i in range(0, len(x), _BLOCK):
        block = _squared(x[i : i + _BLOCK], x)
        block[np.arange(len(block)), np.arange(i, i + len(block))] = 0
        out[i : i + _BLOCK] = np.partition(block, k, axis=1)[:, k]
    return out


def _covered(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    inside = [
        (_squared(points[i : i + _BLOCK], centres) <= radii[None]).any(axis=1) for i in range(0, len(points), _BLOCK)
    ]
    return float(np.concatenate(inside).mean())
