"""What an edit is compared with: matched genes, shuffled labels, halves of one group; intervals over cells and fields."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from sst._arguments import checked
from sst._validate import check_range


@checked
def matched_gene_sets(
    means: np.ndarray, genes: np.ndarray, *, n_sets: int, seed: int = 0, neighbours: int = 8
) -> list[np.ndarray]:
    """Random gene sets as large as ``genes`` and expressed alike in every group.

    Parameters
    ----------
    means
        Mean of each gene in each group, groups x p. Sets are matched in all groups, and so in how far an edit moves them.
    genes
        Indices of the chosen genes (k).
    n_sets
        How many sets.
    seed
        Of the draws.
    neighbours
        Each gene's stand-in is drawn from this many genes nearest in log(0.1 + mean).

    Returns
    -------
    ``n_sets`` arrays of k indices, the i-th being the stand-in of ``genes[i]``; none is chosen itself, none occurs twice.

    Raises
    ------
    ValueError
        Fewer genes are left than were chosen.
    """
    means = np.atleast_2d(means)
    if means.ndim != 2 or not np.isfinite(means).all() or (means < 0).any():
        msg = f"means: expected finite means >= 0, groups x genes, got shape {means.shape}."
        raise ValueError(msg)
    if (
        genes.ndim != 1
        or genes.dtype.kind not in "iu"
        or not len(genes)
        or genes.min() < 0
        or genes.max() >= means.shape[1]
    ):
        msg = f"genes: expected indices in [0, {means.shape[1]}), at least one, got {genes.tolist()[:8] if genes.ndim else genes}."
        raise ValueError(msg)
    check_range("neighbours", neighbours, low=1)
    pool = np.setdiff1d(np.arange(means.shape[1]), genes)
    if len(pool) < len(genes):
        msg = f"{len(genes)} of {means.shape[1]} genes are edited: too few are left to draw random sets of that size."
        raise ValueError(msg)
    places = np.log(0.1 + means).T  # p x groups
    rng = np.random.default_rng(seed)
    sets = []
    for _ in range(n_sets):
        free = np.ones(len(pool), dtype=bool)
        drawn = np.empty(len(genes), dtype=int)
        for at in rng.permutation(len(genes)):
            left = np.flatnonzero(free)
            distance = np.linalg.norm(places[pool[left]] - places[genes[at]], axis=1)
            near = left[np.argsort(distance, kind="stable")[:neighbours]]
            pick = rng.choice(near)
            drawn[at] = pool[pick]
            free[pick] = False
        sets.append(drawn)
    return sets


@checked
def shuffled(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Deal the cells of two masks out again at random, each keeping its size."""
    _check_masks(first=first, second=second)
    union = np.flatnonzero(first | second)
    order = np.random.default_rng(seed).permutation(union)
    a, b = np.zeros_like(first), np.zeros_like(second)
    a[order[: first.sum()]] = True
    b[order[first.sum() :]] = True
    return a, b


@checked
def halves(mask: np.ndarray, *, clusters: np.ndarray | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split a mask at random into halves; whole clusters (fields of view) where there are at least two."""
    _check_masks(mask=mask)
    if clusters is not None:
        clusters = _labels_of(clusters, len(mask))
    rng = np.random.default_rng(seed)
    index = np.flatnonzero(mask)
    first = np.zeros_like(mask)
    if clusters is not None and len(np.unique(clusters[index])) >= 2:
        names, sizes = np.unique(clusters[index], return_counts=True)
        order = rng.permutation(len(names))
        half = np.abs(np.cumsum(sizes[order]) - len(index) / 2).argmin()
        half = min(max(int(half), 0), len(names) - 2)
        first[index[np.isin(clusters[index], names[order[: half + 1]])]] = True
    else:
        first[rng.permutation(index)[: len(index) // 2]] = True
    return first, mask & ~first


def _check_masks(**masks: np.ndarray) -> None:
    shapes = {mask.shape for mask in masks.values()}
    if len(shapes) > 1 or any(mask.dtype != bool or mask.ndim != 1 for mask in masks.values()):
        found = ", ".join(f"{name} {mask.shape} of {mask.dtype}" for name, mask in masks.items())
        msg = f"expected booleans, one a cell, got {found}."
        raise ValueError(msg)


def _labels_of(clusters: np.ndarray, n: int) -> np.ndarray:
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        msg = f"clusters: expected {n} labels, one a cell, got shape {labels.shape}."
        raise ValueError(msg)
    return labels.astype(str)


class MeanInterval(NamedTuple):
    """A mean with its intervals over cells and over clusters."""

    mean: float
    low: float
    high: float
    low_clusters: float
    high_clusters: float
    n: int


@checked
def bootstrap_mean(
    values: np.ndarray,
    clusters: np.ndarray | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> MeanInterval:
    """Mean with percentile bootstrap intervals over cells, and over whole clusters (fields of view).

    Cells of one field share light, focus and neighbours: resampling fields respects that, resampling cells does not, and is
    too sure of itself.

    Parameters
    ----------
    values
        One number a cell; NaN are left out.
    clusters
        Label of each cell's cluster; fewer than two give NaN.
    level
        Coverage.
    n_resamples, seed
        How many resamples, and their seed.
    """
    values = np.asarray(values, dtype=float).ravel()
    check_range("level", level, low=0, high=1, open_low=True)
    clusters = None if clusters is None else _labels_of(clusters, len(values))
    fine = np.isfinite(values)
    kept = values[fine]
    nan = float("nan")
    if kept.size == 0:
        return MeanInterval(nan, nan, nan, nan, nan, 0)
    options: dict[str, Any] = {"level": level, "n_resamples": n_resamples, "seed": seed}
    low, high = _interval(kept, np.ones(kept.size), **options)
    low_c = high_c = nan
    if clusters is not None:
        _, where = np.unique(np.asarray(clusters)[fine].astype(str), return_inverse=True)
        if where.max() >= 1:
            low_c, high_c = _interval(np.bincount(where, weights=kept), np.bincount(where).astype(float), **options)
    return MeanInterval(float(kept.mean()), float(low), float(high), float(low_c), float(high_c), int(kept.size))


def _interval(sums: np.ndarray, sizes: np.ndarray, *, level: float, n_resamples: int, seed: int) -> tuple[float, float]:
    """Interval of the mean over units that are sums over ``sizes`` cells."""
    if sums.size == 1:
        return float(sums[0] / sizes[0]), float(sums[0] / sizes[0])
    found = stats.bootstrap(
        (sums, sizes),
        lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, int(4e6) // sums.size),
        confidence_level=min(level, 1 - 1e-9),
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
