from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sst.metrics import bootstrap_ci, compare_groups


def test_bootstrap_against_scipy():
    x = np.random.default_rng(0).gamma(2, size=200)
    got = bootstrap_ci(x, statistic=np.mean, n_resamples=4000)
    reference = stats.bootstrap((x,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert got.value == pytest.approx(x.mean())
    assert got.low == pytest.approx(reference.low, rel=0.02)
    assert got.high == pytest.approx(reference.high, rel=0.02)


def test_bootstrap_covers_the_truth():
    rng = np.random.default_rng(1)
    hits = 0
    for k in range(200):
        interval = bootstrap_ci(rng.normal(2, 1, 60), rng.normal(1, 2, 60), statistic=np.mean, n_resamples=300, seed=k)
        hits += interval.low <= 1 <= interval.high
    assert 175 <= hits <= 199


def test_compare_groups():
    rng = np.random.default_rng(2)
    x, y = rng.normal(1, 1, 80), np.append(rng.normal(0, 1, 60), np.nan)
    got = compare_groups(x, y)
    y = y[:-1]
    assert (got.n_x, got.n_y) == (80, 60)
    assert got.p == pytest.approx(stats.mannwhitneyu(x, y).pvalue)
    delta = np.mean(np.sign(x[:, None] - y[None]))
    assert got.cliffs_delta == pytest.approx(delta)
    pooled = np.sqrt((79 * x.var(ddof=1) + 59 * y.var(ddof=1)) / 138)
    assert got.hedges_g == pytest.approx((x.mean() - y.mean()) / pooled * (1 - 3 / (4 * 138 - 1)))
    assert got.low < got.difference < got.high


def test_compare_paired_and_degenerate():
    x = np.arange(30.0)
    shift = compare_groups(x + 1, x, paired=True)
    assert shift.difference == 1
    assert shift.low == shift.high == 1
    assert shift.p < 1e-4
    assert compare_groups(x, x, paired=True).p == 1
    assert np.isnan(compare_groups([1.0], x).p)
    assert compare_groups(np.ones(5), np.ones(5)).hedges_g == 0
    with pytest.raises(ValueError, match="one length"):
        compare_groups(x, x[:3], paired=True)
