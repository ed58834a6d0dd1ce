"""Effects over donors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sst.metrics import over_donors


def test_is_the_t_test_of_the_donors_means():
    rng = np.random.default_rng(0)
    donors = np.repeat(["a", "b", "c"], [10, 200, 50])
    values = rng.normal(1, 1, 260)
    values[3] = np.nan
    found = over_donors(values, donors)
    means = [np.nanmean(values[donors == d]) for d in "abc"]
    test = stats.ttest_1samp(means, 0)
    assert found.mean == pytest.approx(np.mean(means))  # not of the cells
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.n_donors == 3
    assert list(found.each.values()) == pytest.approx(means)


def test_many_cells_are_no_many_donors():
    """Two donors of opposite effect: as many cells as one likes give no certainty."""
    donors = np.repeat(["a", "b"], 100_000)
    found = over_donors(np.where(donors == "a", 0.5, 1.5), donors)
    assert found.low < 0 < found.mean
    assert found.p > 0.2


def test_one_donor_has_no_interval_and_none_no_effect():
    one = over_donors(np.array([1.0, 3.0]), ["a", "a"])
    assert one.mean == 2
    assert np.isnan([one.low, one.high, one.p]).all()
    none = over_donors(np.array([np.nan, 1.0]), ["a", "b"])
    assert none.n_donors == 1
    assert np.isnan(none.each["a"])
    nothing = over_donors(np.array([np.nan]), ["a"])
    assert nothing.n_donors == 0
    same = over_donors(np.zeros(4), list("aabb"))
    assert (same.mean, same.p) == (0, 1)


def test_as_many_labels_as_values():
    with pytest.raises(ValueError, match="expected 3 labels"):
        over_donors(np.zeros(3), ["a", "b"])
