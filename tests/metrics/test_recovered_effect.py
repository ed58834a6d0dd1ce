from __future__ import annotations

import numpy as np
import pytest

from sst.metrics import recovered_effect


def test_values_against_plain_formulas():
    rng = np.random.default_rng(0)
    true = rng.normal(5, 1, 200)
    change = 0.6 * true + rng.normal(0, 1, (3, 200))
    true[7] = np.nan
    found = recovered_effect(change, true, np.arange(200) // 20)
    fine = np.arange(200) != 7
    assert found.n == 199
    assert (found.n_clusters, found.n_seeds) == (10, 3)
    np.testing.assert_allclose(found.change, change[:, fine].mean())
    np.testing.assert_allclose(found.share, change[:, fine].mean() / true[fine].mean())
    np.testing.assert_allclose(found.r, np.mean([np.corrcoef(c[fine], true[fine])[0, 1] for c in change]))
    assert found.share_low < found.share < found.share_high
    assert found.r_low < found.r < found.r_high


def test_interval_is_over_fields_and_seeds_not_cells():
    """Cells of a field that err together: an interval over cells would be far too sure."""
    rng = np.random.default_rng(1)
    fields = np.repeat(np.arange(20), 50)
    inside = 0
    for trial in range(100):
        change = 1 + rng.normal(0, 0.5, 20)[fields] + rng.normal(0, 0.1, 1000)
        found = recovered_effect(change, np.ones(1000), fields, n_resamples=300, seed=trial)
        inside += found.share_low < 1 < found.share_high
    assert 85 <= inside <= 99
    cells = recovered_effect(change, np.ones(1000))
    assert cells.share_high - cells.share_low < 0.4 * (found.share_high - found.share_low)

    seeds = 1 + np.array([-0.5, 0.0, 0.5])[:, None] + rng.normal(0, 0.1, (3, 1000))
    several, one = recovered_effect(seeds, np.ones(1000), fields), recovered_effect(seeds[1], np.ones(1000), fields)
    assert several.share_high - several.share_low > 5 * (one.share_high - one.share_low)


def test_one_field_has_no_interval():
    found = recovered_effect(np.arange(5.0), np.ones(5), np.zeros(5))
    assert found.share == 2
    assert np.isnan(found.share_low)
    assert np.isnan(found.r)  # the truth is the same for all


def test_errors_and_nothing_finite():
    with pytest.raises(ValueError, match="true_change"):
        recovered_effect(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="clusters"):
        recovered_effect(np.ones(3), np.ones(3), np.zeros(2))
    assert recovered_effect(np.full(3, np.nan), np.ones(3)).n == 0
