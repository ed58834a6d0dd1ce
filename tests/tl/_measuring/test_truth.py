"""Features of edited cells against the true ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sst.tl._measuring import feature_rows


def rows(change, true):
    n = len(true)
    real = pd.DataFrame({"area": np.linspace(0, 10, n)})
    after = real.assign(area=real["area"] + true)
    tables = [pd.DataFrame({"area": change})]
    options = {"level": 0.95, "n_resamples": 20, "seed": 0}
    (row,) = feature_rows(real, after, tables, np.arange(n) % 4, pd.Series({"area": 1.0}), **options)
    return row


def test_whether_a_share_is_given_depends_on_the_truth_alone():
    """A model without a measure in some cells is judged on the others, but by the same rule as all models."""
    true = np.r_[np.full(30, 1.0), np.full(10, -2.0)]  # on average little, in the first cells much
    assert abs(true.mean()) < 0.1 * np.linspace(0, 10, 40).std()
    whole, part = np.ones(40), np.r_[np.ones(30), np.full(10, np.nan)]
    assert np.isnan(rows(whole, true)["share"])
    assert np.isnan(rows(part, true)["share"])

    true = np.r_[np.full(30, 0.1), np.full(10, 5.0)]
    assert rows(part, true)["share"] == pytest.approx(10)
    assert rows(whole, true)["share"] == pytest.approx(1 / true.mean())
