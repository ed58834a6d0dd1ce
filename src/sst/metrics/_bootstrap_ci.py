"""Confidence intervals by resampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sst._validate import check_range

if TYPE_CHECKING:
    from collections.abc import Callable


class Interval(NamedTuple):
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap_ci(
    values: np.ndarray,
    other: np.ndarray | None = None,
    *,
    statistic: Callable[..., np.ndarray] = np.median,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a statistic, or of its difference between two independent samples.

    Parameters
    ----------
    values
        n numbers; NaN are left out.
    other
        A second sample: the interval is that of ``statistic(values) - statistic(other)``.
    statistic
        A function with an ``axis`` keyword (``np.median``, ``np.mean``, ...).
    level
        Coverage.
    n_resamples, seed
        How many resamples, and their seed.

    Returns
    -------
    ``(value, low, high)``; NaN where a sample is empty.

    References
    ----------
    Efron, *Bootstrap methods: another look at the jackknife* (1979).
    """
    check_range("level", level, low=0.0, high=1.0, open_low=True)
    rng = np.random.default_rng(seed)
    value, draws = _resample(values, statistic, n_resamples, rng)
    if other is not None:
        value2, draws2 = _resample(other, statistic, n_resamples, rng)
        value, draws = value - value2, draws - draws2
    if not np.isfinite(value):
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def _resample(
    values: np.ndarray, statistic: Callable[..., np.ndarray], n_resamples: int, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    values = np.asarray(values, dtype=float).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        return float("nan"), np.full(n_resamples, np.nan)
    draws = np.empty(n_resamples)
    step = max(1, int(4e6) // values.size)  # resamples at a time: memory stays flat
    for i in range(0, n_resamples, step):
        k = min(step, n_resamples - i)
        draws[i : i + k] = statistic(values[rng.integers(0, values.size, (k, values.size))], axis=1)
    return float(statistic(values, axis=0)), draws
