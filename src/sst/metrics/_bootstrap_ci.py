"""Confidence intervals by resampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from sst._arguments import checked
from sst._validate import check_range

if TYPE_CHECKING:
    from collections.abc import Callable


class Interval(NamedTuple):
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float


@checked
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
    samples = [_finite(values)] if other is None else [_finite(values), _finite(other)]
    if not all(sample.size for sample in samples):
        return Interval(float("nan"), float("nan"), float("nan"))

    def difference(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        first, *second = (statistic(part, axis=axis) for part in drawn)
        return first - second[0] if second else first

    value = float(difference(*samples))
    # one value has no spread, and twice the same none either
    samples = [np.repeat(sample, 2) if sample.size == 1 else sample for sample in samples]
    found = stats.bootstrap(
        samples,
        difference,
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, int(4e6) // max(sample.size for sample in samples)),  # memory stays flat
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return Interval(value, float(found.confidence_interval.low), float(found.confidence_interval.high))


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    return values[np.isfinite(values)]
