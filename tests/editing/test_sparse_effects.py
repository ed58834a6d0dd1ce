"""Genes that act are told from those that go with them, at the noise of sparse counts."""

from __future__ import annotations

import numpy as np
import pytest

from sst.editing import fit_latent, sparse_effects


def study(n=6000, p=40, slides=4):
    """Genes 0 and 1 act on trait 0, none on trait 1; genes 4, 8, ... are of gene 0's programme; slides differ in light and in gene 4."""
    rng = np.random.default_rng(0)
    slide = np.arange(n) % slides
    programme = rng.normal(size=(n, 4))
    log_rate = np.log(1.5) + 0.45 * programme[:, np.arange(p) % 4] + 0.35 * rng.normal(size=(n, p))
    log_rate[:, 4] += 0.3 * slide
    traits = np.stack([log_rate[:, 0] - 0.5 * log_rate[:, 1] + 0.5 * slide, 0.5 * slide], axis=1)
    traits += rng.normal(0, 0.5, traits.shape)
    return log_rate, rng.poisson(np.exp(log_rate)), traits, slide


def within(values, slide):
    return values - np.stack([values[slide == s].mean(axis=0) for s in range(slide.max() + 1)])[slide]


def test_only_the_genes_that_act_have_slopes_and_these_their_true_size():
    log_rate, counts, traits, slide = study()
    latent = fit_latent(counts, slide, between=False)
    t, y = within(latent.standardise(counts), slide), within(traits, slide)
    slopes, z = sparse_effects(t, y / y.std(axis=0), latent)
    assert np.flatnonzero(slopes[:, 0]).tolist() == [0, 1]
    assert not slopes[:, 1].any()
    assert (np.abs(z[:2, 0]) > 4).all()
    # the truth: what the trait does when latent values rise until log counts do by one SD
    clean = np.mean([latent.standardise(np.random.default_rng(k).poisson(np.exp(log_rate))) for k in range(40)], axis=0)
    true = np.linalg.lstsq(within(clean, slide)[:, :2], y[:, 0] / y[:, 0].std(), rcond=None)[0]
    np.testing.assert_allclose(slopes[:2, 0], true, rtol=0.15)
    plain = np.linalg.lstsq(t, y[:, 0] / y[:, 0].std(), rcond=None)[0]
    assert plain[0] < 0.6 * true[0]  # what regression on counts makes of it
    assert plain[[4, 8, 12]].min() > 0.05 * true[0]


def test_chance_has_no_slopes():
    _, counts, traits, _ = study(n=500)
    latent = fit_latent(counts)
    y = np.random.default_rng(5).permutation(traits)
    slopes, _ = sparse_effects(latent.standardise(counts), (y - y.mean(axis=0)) / y.std(axis=0), latent)
    assert not slopes.any()


def test_cells_and_genes_must_pair():
    _, counts, traits, _ = study(n=100)
    latent = fit_latent(counts)
    with pytest.raises(ValueError, match="do not pair"):
        sparse_effects(latent.standardise(counts)[:, :5], traits, latent)
