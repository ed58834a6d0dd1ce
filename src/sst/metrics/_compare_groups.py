"""Two samples side by side: difference, effect size, test."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from sst._arguments import checked

from ._bootstrap_ci import bootstrap_ci


class Comparison(NamedTuple):
    """What :func:`compare_groups` returns.

    Attributes
    ----------
    n_x, n_y
        Finite values in each sample.
    median_x, median_y, difference, low, high
        Medians, their difference x - y and its bootstrap interval.
    hedges_g
        Difference of means in pooled standard deviations, corrected for small samples.
    cliffs_delta
        P(x > y) - P(x < y), -1..1.
    p
        Two-sided Mann-Whitney test (Wilcoxon signed-rank where the cells are paired).
    """

    n_x: int
    n_y: int
    median_x: float
    median_y: float
    difference: float
    low: float
    high: float
    hedges_g: float
    cliffs_delta: float
    p: float


@checked
def compare_groups(
    x: np.ndarray, y: np.ndarray, *, paired: bool = False, level: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Compare two samples of one quantity.

    Parameters
    ----------
    x, y
        Numbers; NaN are left out (of pairs, both).
    paired
        ``x[i]`` and ``y[i]`` belong to one cell: signed-rank test, interval of the median of the differences.
    level, n_resamples, seed
        Of the bootstrap.

    Returns
    -------
    A named tuple, see :class:`Comparison`; NaN where a sample has fewer than two values.

    Raises
    ------
    ValueError
        ``paired`` samples of different lengths.
    """
    x, y = np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    if paired:
        if x.shape != y.shape:
            msg = f"paired samples must have one length, got {x.size} and {y.size}."
            raise ValueError(msg)
        keep = np.isfinite(x) & np.isfinite(y)
        x, y = x[keep], y[keep]
    else:
        x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    nan = float("nan")
    if min(x.size, y.size) < 2:
        a, b = (float(np.median(v)) if v.size else nan for v in (x, y))
        return Comparison(x.size, y.size, a, b, a - b, nan, nan, nan, nan, nan)
    options = {"level": level, "n_resamples": n_resamples, "seed": seed}
    interval = bootstrap_ci(x - y, **options) if paired else bootstrap_ci(x, y, **options)  # type: ignore[arg-type]
    u = stats.mannwhitneyu(x, y, alternative="two-sided")
    p = float(u.pvalue)
    if paired:
        p = float(stats.wilcoxon(x, y).pvalue) if (x - y).any() else 1.0
    return Comparison(
        x.size,
        y.size,
        float(np.median(x)),
        float(np.median(y)),
        *interval,
        _hedges(x, y),
        float(2 * u.statistic / (x.size * y.size) - 1),
        p,
    )


def _hedges(x: np.ndarray, y: np.ndarray) -> float:
    freedom = x.size + y.size - 2
    pooled = ((x.size - 1) * x.var(ddof=1) + (y.size - 1) * y.var(ddof=1)) / freedom
    gap = x.mean() - y.mean()
    if pooled == 0:
        return 0.0 if gap == 0 else float(np.copysign(np.inf, gap))
    return float(gap / pooled**0.5 * (1 - 3 / (4 * freedom - 1)))
