from __future__ import annotations

import numpy as np
import pytest

from sst.editing import bootstrap_mean, halves, matched_gene_sets, shuffled


def test_matched_sets_have_the_levels_of_the_chosen() -> None:
    rng = np.random.default_rng(0)
    means = rng.gamma(0.5, 3, (2, 200))
    genes = np.array([3, 50, 120])
    sets = matched_gene_sets(means, genes, n_sets=20, seed=1)
    assert len(sets) == 20
    place = np.log(0.1 + means)
    off = [np.abs(place[:, s] - place[:, genes]).mean() for s in sets]
    any_off = [np.abs(place[:, rng.choice(200, 3)] - place[:, genes]).mean() for _ in range(200)]
    assert np.mean(off) < 0.3 * np.mean(any_off)
    for s in sets:
        assert not set(s) & set(genes)
        assert len(set(s)) == 3
    assert len({tuple(s) for s in sets}) > 10
    np.testing.assert_array_equal(matched_gene_sets(means, genes, n_sets=20, seed=1)[4], sets[4])
    with pytest.raises(ValueError, match="too few are left"):
        matched_gene_sets(means[:, :5], np.arange(3), n_sets=1)


def test_shuffles_and_halves() -> None:
    a, b = np.arange(100) < 30, np.arange(100) >= 60
    c, d = shuffled(a, b, seed=0)
    assert c.sum() == 30
    assert d.sum() == 40
    assert not (c & d).any()
    np.testing.assert_array_equal(c | d, a | b)
    clusters = np.arange(100) // 5
    first, second = halves(b, clusters=clusters)
    assert 15 <= first.sum() <= 25
    assert not set(clusters[first]) & set(clusters[second])
    np.testing.assert_array_equal(first | second, b)
    first, second = halves(a)
    assert (first.sum(), second.sum()) == (15, 15)
    first, second = halves(a, clusters=np.r_[np.zeros(28), np.ones(72)])  # very uneven clusters: still two parts
    assert first.any()
    assert second.any()


def test_bootstrap_covers_and_clusters_are_wider() -> None:
    rng = np.random.default_rng(0)
    hits, widths = [], []
    for seed in range(150):
        clusters = np.repeat(np.arange(25), 20)
        values = rng.normal(0, 1, 25)[clusters] + rng.normal(0, 1, 500)
        got = bootstrap_mean(values, clusters, n_resamples=300, seed=seed)
        assert got.mean == pytest.approx(values.mean())
        hits.append((got.low <= 0 <= got.high, got.low_clusters <= 0 <= got.high_clusters))
        widths.append((got.high - got.low, got.high_clusters - got.low_clusters))
    cells, fields = np.mean(hits, axis=0)
    assert fields > 0.85  # near the 95 % asked for; resampling cells pretends to know more
    assert cells < 0.6
    assert np.mean(widths, axis=0)[1] > 2 * np.mean(widths, axis=0)[0]


def test_bootstrap_of_odd_input() -> None:
    got = bootstrap_mean(np.array([1.0, np.nan, 3.0]), np.array(["a", "b", "a"]))
    assert got.mean == 2
    assert got.n == 2
    assert np.isnan(got.low_clusters)
    assert bootstrap_mean(np.array([np.nan])).n == 0
