"""Errors in variables on synthetic data whose latent expression, and slopes on it, are known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from sst.editing import counting_noise, fit_latent


def counts_of(rng, n=8000, p=40, rate=1.5, own=0.35, shared=0.45):
    """Log-normal rates of genes in four programmes, and their Poisson counts."""
    programme = rng.normal(size=(n, 4))
    log_rate = np.log(rate) + shared * programme[:, np.arange(p) % 4] + own * rng.normal(size=(n, p))
    return log_rate, rng.poisson(np.exp(log_rate))


def test_counting_noise_is_what_poisson_adds():
    rng = np.random.default_rng(0)
    for mean, spread in ((0.2, 0.5), (3.0, 0.8), (60.0, 0.4)):
        rates = rng.gamma(1 / spread**2, mean * spread**2, 4000)
        within = np.log1p(rng.poisson(rates, (400, 4000))).var(axis=0).mean()
        found = counting_noise(np.array([mean]), np.array([mean + (mean * spread) ** 2]))[0]
        np.testing.assert_allclose(found, within, rtol=0.03)


def test_reliability_against_the_truth():
    log_rate, counts = counts_of(np.random.default_rng(1), rate=np.geomspace(0.2, 20, 40))
    model = fit_latent(sp.csr_matrix(counts))
    t = model.standardise(counts)
    again = model.standardise(np.random.default_rng(2).poisson(np.exp(log_rate)))  # a second reading of the same cells
    repeated = np.array([np.corrcoef(t[:, g], again[:, g])[0, 1] for g in range(40)])
    np.testing.assert_allclose(model.reliability, repeated, atol=0.05)
    assert (np.diff(model.reliability[::4]) > -0.03).all()  # deeper counts are surer


def test_recovers_slopes_that_regression_attenuates():
    """Gene 0 causes the feature; gene 4 is of its programme and causes nothing."""
    rng = np.random.default_rng(3)
    log_rate, counts = counts_of(rng)
    feature = log_rate[:, 0] + rng.normal(0, 0.2, len(counts))
    model = fit_latent(counts)
    t = model.standardise(counts)
    slopes = np.linalg.lstsq(t, feature - feature.mean(), rcond=None)[0]
    # the truth: what the feature does when the latent values of a gene rise until its log counts rise by one SD
    clean = model.standardise(np.stack([np.random.default_rng(k).poisson(np.exp(log_rate)) for k in range(60)])).mean(0)
    true = np.linalg.lstsq(clean - clean.mean(0), feature - feature.mean(), rcond=None)[0]
    ask = np.zeros((2, 40))
    ask[0, 0] = ask[1, 4] = 1.0
    plain = ask @ slopes
    corrected = np.array([model.shift(row[None]).values[0] @ slopes for row in ask])
    assert plain[0] < 0.55 * true[0]
    assert plain[1] > 0.05 * true[0]
    np.testing.assert_allclose(corrected[0], true[0], rtol=0.12)
    assert abs(corrected[1]) < 0.5 * plain[1]


def test_a_ridge_penalty_counts_as_noise():
    """Slopes that a penalty shrank come out as without it: the penalty / cells is so much more noise in every gene."""
    rng = np.random.default_rng(7)
    log_rate, counts = counts_of(rng, n=6000, p=20)
    feature = log_rate[:, 0] + rng.normal(0, 0.2, len(counts))
    model = fit_latent(counts)
    t = model.standardise(counts)
    t, y = t - t.mean(0), feature - feature.mean()
    ask = np.zeros((1, 20))
    ask[0, 0] = 1
    found = []
    for penalty in (0.0, 1500.0):
        slopes = np.linalg.solve(t.T @ t + penalty * np.eye(20), t.T @ y)
        found.append(
            [(m.shift(ask, moved=0.99).values @ slopes)[0] for m in (model, model.with_shrinkage(penalty / 6000))]
        )
    assert found[1][0] < 0.9 * found[0][0]
    np.testing.assert_allclose(found[1][1], found[0][0], rtol=0.03)
    np.testing.assert_array_equal(model.with_shrinkage(0.25).reliability, model.reliability)


def test_what_sets_groups_apart_can_be_left_out():
    rng = np.random.default_rng(8)
    _, counts = counts_of(rng, n=4000, p=12, rate=3.0)
    group = np.arange(4000) % 2
    shifted = counts + rng.poisson(3.0 * (group == 1)[:, None] * (np.arange(12) < 2))
    together, within = fit_latent(shifted, group), fit_latent(shifted, group, between=False)
    assert together.covariance[0, 1] > within.covariance[0, 1] + 0.1
    np.testing.assert_allclose(together.covariance[5, 9], within.covariance[5, 9], atol=0.01)


def test_shift_is_the_ridge_solution_and_moves_what_was_asked():
    rng = np.random.default_rng(4)
    _, counts = counts_of(rng, n=3000, p=12)
    model = fit_latent(counts)
    latent = model.covariance
    total = latent + np.diag(model.noise)
    L = latent @ np.linalg.inv(total)
    ask = rng.normal(size=(5, 12)) * (np.arange(12) < 3)
    found = model.shift(ask)
    weight = np.linalg.inv(total)
    expected = np.linalg.solve(L.T @ weight @ L + found.penalty * weight, L.T @ weight @ ask.T).T
    np.testing.assert_allclose(found.values, expected, atol=1e-8)
    made = found.values @ L.T
    np.testing.assert_allclose(found.moved, (made * ask).sum() / (ask**2).sum())
    assert found.moved >= 0.95 - 1e-6
    assert model.shift(ask, moved=0.8).penalty > found.penalty
    assert model.shift(ask, moved=0.8).amplified < found.amplified
    np.testing.assert_allclose(model.infer(found.values), made)


def test_shown_counts():
    _, counts = counts_of(np.random.default_rng(5), n=2000, p=12, rate=0.6)
    model = fit_latent(counts)
    own = counts[:50].astype(float)
    np.testing.assert_allclose(model.show(own, own), own, atol=1e-9)  # no edit: the cell's own counts
    edited = own.copy()
    edited[:, 0] *= 3
    shown = model.show(own, edited)
    assert (shown > -1).all()
    assert shown[:, 4].mean() < own[:, 4].mean()  # of the same programme: must say less
    assert (np.log1p(shown) - np.log1p(own))[:, 0].mean() > (np.log1p(edited) - np.log1p(own))[:, 0].mean()


def test_few_cells_and_constant_genes():
    with pytest.raises(ValueError, match="9 cells"):
        fit_latent(np.ones((9, 3)))
    counts = np.random.default_rng(6).poisson(3, (100, 3))
    counts[:, 1] = 0
    model = fit_latent(counts)
    assert np.isfinite(model.shift(np.ones((1, 3))).values).all()
    assert model.reliability[1] < 0.05


def test_counting_noise_of_overdispersed_counts():
    rng = np.random.default_rng(0)
    for mean, spread, dispersion in ((0.5, 0.5, 0.1), (5.0, 0.4, 0.3), (300.0, 0.3, 0.1)):
        rates = rng.gamma(1 / spread**2, mean * spread**2, 4000)
        noisy = rates * rng.gamma(1 / dispersion, dispersion, (400, 4000))
        counts = rng.poisson(noisy)
        found = counting_noise(np.array([mean]), np.array([float(counts.var())]), dispersion=dispersion)[0]
        np.testing.assert_allclose(found, np.log1p(counts).var(axis=0).mean(), rtol=0.06)
