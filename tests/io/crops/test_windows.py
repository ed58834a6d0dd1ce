"""Counts in windows against the obvious way."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sst.io.crops._windows import count_windows, index_transcripts, window_corners


def brute_force(x, y, gene, corners, size, n_genes):
    out = np.zeros((len(corners), n_genes), int)
    for i, (x0, y0) in enumerate(corners):
        inside = (x >= x0) & (x < x0 + size) & (y >= y0) & (y < y0 + size)
        out[i] = np.bincount(gene[inside], minlength=n_genes)
    return out


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(0, 400),
    cells=st.integers(0, 12),
    size=st.integers(1, 200),
    genes=st.integers(1, 9),
    extent=st.sampled_from([1.0, 40.0, 300.0, 2000.0]),
    shift=st.integers(3, 7),
    whole=st.booleans(),
)
def test_equals_brute_force(seed, n, cells, size, genes, extent, shift, whole):
    rng = np.random.default_rng(seed)
    offset = rng.integers(-5000, 5000, 2)
    x, y = rng.uniform(0, extent, (2, n)) + offset[:, None]
    if whole:  # exactly on the edges
        x, y = np.round(x), np.round(y)
    gene = rng.integers(0, genes, n)
    centres = rng.uniform(-0.3 * extent, 1.3 * extent, (cells, 2)) + offset
    corners = window_corners(centres, size)
    counts = count_windows(index_transcripts(x, y, gene, shift=shift), corners, size, genes)
    assert counts.has_canonical_format
    np.testing.assert_array_equal(counts.toarray(), brute_force(x, y, gene, corners, size, genes))


@pytest.mark.parametrize(("size", "low"), [(160, -80), (5, -2), (1, 0)])
def test_window_of_a_centre(size, low):
    np.testing.assert_array_equal(
        window_corners(np.array([[10.0, 10.999], [-0.5, 0.0]]), size), [[10 + low] * 2, [-1 + low, low]]
    )


def test_edges_belong_to_one_window():
    x = np.array([0.0, 9.999, 10.0, 19.999, 20.0])
    index = index_transcripts(x, np.zeros(5), np.zeros(5, int))
    counts = count_windows(index, np.array([[0, 0], [10, 0]]), 10, 1).toarray().ravel()
    assert counts.tolist() == [2, 2]


def test_more_rows_than_one_batch():
    rng = np.random.default_rng(0)
    x, y, gene = rng.uniform(0, 100, 500), rng.uniform(0, 100, 500), rng.integers(0, 3, 500)
    corners = rng.integers(-5, 95, (5000, 2))
    counts = count_windows(index_transcripts(x, y, gene), corners, 7, 3)
    np.testing.assert_array_equal(counts.toarray(), brute_force(x, y, gene, corners, 7, 3))
