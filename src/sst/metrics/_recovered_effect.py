"""How much of a true effect a model's change of each cell recovers, with intervals over fields and seeds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sst._arguments import checked
from sst._validate import check_range


class RecoveredEffect(NamedTuple):
    """A model's change beside the true one.

    Attributes
    ----------
    change, change_low, change_high
        Mean change, and its interval.
    true_change
        Mean true change.
    share, share_low, share_high
        Change / true change.
    r, r_low, r_high
        Correlation over cells of the change with the true change.
    n, n_clusters, n_seeds
        Cells, clusters and seeds.
    """

    change: float
    change_low: float
    change_high: float
    true_change: float
    share: float
    share_low: float
    share_high: float
    r: float
    r_low: float
    r_high: float
    n: int
    n_clusters: int
    n_seeds: int


@checked
def recovered_effect(
    change: np.ndarray,
    true_change: np.ndarray,
    clusters: np.ndarray | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> RecoveredEffect:
    """Compare the change of each cell with its true change.

    Cells of a field share light, focus and neighbours, and another seed gives another model: the intervals are percentile
    intervals of a bootstrap that draws whole clusters and, where there are several, whole seeds, anew. With one cluster there is no
    interval.

    Parameters
    ----------
    change
        n values, or seeds x n.
    true_change
        n values; cells with a gap in either are left out.
    clusters
        Label of each cell's field (``None``: each cell its own).
    level
        Coverage.
    n_resamples, seed
        Of the bootstrap.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    made, true = np.atleast_2d(np.asarray(change, float)), np.asarray(true_change, float)
    if made.ndim != 2 or true.shape != made.shape[1:]:
        msg = f"change has shape {np.shape(change)}, true_change {true.shape}: expected (seeds,) n and n."
        raise ValueError(msg)
    check_range("level", level, low=0, high=1)
    check_range("n_resamples", n_resamples, low=1)
    labels = np.arange(len(true)) if clusters is None else np.asarray(clusters)
    if labels.shape != true.shape:
        msg = f"clusters has shape {labels.shape}: expected one label a cell, {true.shape}."
        raise ValueError(msg)
    fine = np.isfinite(made).all(axis=0) & np.isfinite(true)
    made, true = made[:, fine], true[fine]
    names, where = np.unique(labels[fine].astype(str), return_inverse=True)
    s, k, nan = len(made), len(names), float("nan")
    if not len(true):
        return RecoveredEffect(nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, 0, 0, s)

    def sums(values: np.ndarray) -> np.ndarray:  # s x n -> s x k
        return np.stack([np.bincount(where, weights=row, minlength=k) for row in values])

    size = np.bincount(where, minlength=k).astype(float)
    centred, level_made = true - true.mean(), made - made.mean(axis=1, keepdims=True)  # centred: squares stay exact
    moments = [
        sums(made), sums(true[None]), sums(level_made), sums(level_made**2), sums(level_made * centred),
        sums(centred[None]), sums(centred[None] ** 2),
    ]  # fmt: skip

    def statistics(fields: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Change, share and correlation for weights of the fields (m x k) and of the seeds (m x s): 3 x m."""
        n = fields @ size
        x, y, u, uu, uv, v, vv = ((fields @ m.T) / n[:, None] for m in moments)  # m x s, or m x 1
        with np.errstate(divide="ignore", invalid="ignore"):
            r = (uv - u * v) / np.sqrt((uu - u**2) * (vv - v**2))
        mean = (seeds * x).sum(axis=1) / s
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([mean, mean / y[:, 0], (seeds * r).sum(axis=1) / s])

    value, share, r = statistics(np.ones((1, k)), np.ones((1, s)))[:, 0]
    low, high = np.full(3, nan), np.full(3, nan)
    if k > 1:
        rng = np.random.default_rng(seed)
        drawn = statistics(
            rng.multinomial(k, np.full(k, 1 / k), n_resamples).astype(float),
            rng.multinomial(s, np.full(s, 1 / s), n_resamples).astype(float),
        )
        tails = [(1 - level) / 2, (1 + level) / 2]
        fine_draws = np.isfinite(drawn).all(axis=1)
        low[fine_draws], high[fine_draws] = np.quantile(drawn[fine_draws], tails, axis=1)
    first, last = low.tolist(), high.tolist()
    return RecoveredEffect(
        float(value), first[0], last[0], float(true.mean()), float(share), first[1], last[1], float(r), first[2], last[2],
        len(true), k, s,
    )  # fmt: skip
