from __future__ import annotations

import importlib

import numpy as np
import pytest
from scipy import linalg

from sst.metrics import Moments, d_eig, d_lea, frechet_distance, kid, precision_recall


def _sqrtm_frechet(x, y):
    """The textbook formula, with the general matrix square root."""
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(s @ t)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root).real


def _features(n, d, seed, rank=None):
    rng = np.random.default_rng(seed)
    rank = d if rank is None else rank
    return rng.normal(size=(n, rank)) @ (
        rng.normal(size=(rank, d)) * np.geomspace(1, 0.05, rank)[:, None]
    ) + rng.normal(size=d)


@pytest.mark.parametrize(("n", "m", "d"), [(500, 400, 32), (300, 1000, 64), (2, 3, 2)])
def test_frechet_equals_sqrtm(n, m, d):
    x, y = _features(n, d, 0), _features(m, d, 1)
    expected = _sqrtm_frechet(x, y) if n > d else None
    got = frechet_distance(x, y)
    if expected is not None:
        assert got == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(y, x) == pytest.approx(got, rel=1e-9)
    assert frechet_distance(Moments(x), Moments(y)) == pytest.approx(got, rel=1e-6)
    assert frechet_distance(Moments(x), y) == pytest.approx(got, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 300), (300, 20)])
def test_frechet_with_fewer_samples_than_dimensions(n, m):
    d = 60
    x, y = _features(n, d, 2), _features(m, d, 3)

    # reference: roots of the singular covariances by eigh, then the trace norm of their product
    def root(a):
        w, v = np.linalg.eigh(np.cov(a, rowvar=False))
        return v * np.sqrt(np.maximum(w, 0)) @ v.T

    nuclear = np.linalg.svd(root(x) @ root(y), compute_uv=False).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum() - 2 * nuclear
    for a in (x, Moments(x)):
        for b in (y, Moments(y)):
            assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_frechet_of_rank_deficient_moments():
    x, y = _features(400, 40, 4, rank=7), _features(400, 40, 5, rank=9)
    w = [np.linalg.eigh(np.cov(a, rowvar=False)) for a in (x, y)]
    roots = [v * np.sqrt(np.maximum(e, 0)) @ v.T for e, v in w]
    nuclear = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    expected = (
        ((x.mean(0) - y.mean(0)) ** 2).sum() + sum(np.trace(np.cov(a, rowvar=False)) for a in (x, y)) - 2 * nuclear
    )
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, y, device="cpu") == pytest.approx(expected, rel=1e-6)


def test_frechet_known_gaussians():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200_000, 2)) * [1, 2]
    y = rng.normal(size=(200_000, 2)) * [3, 1] + [2, 0]
    assert frechet_distance(x, y) == pytest.approx(4 + (3 - 1) ** 2 + (2 - 1) ** 2, rel=0.02)


def test_frechet_on_torch_is_the_same():
    x, y = _features(300, 24, 6), _features(200, 24, 7)
    assert frechet_distance(x, y, device="cpu") == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert frechet_distance(x[:9], y[:8], device="cpu") == pytest.approx(frechet_distance(x[:9], y[:8]), rel=1e-9)


def test_moments_stream_and_join():
    x = _features(257, 12, 8) * 100 + 1e4
    stream = Moments.stream(np.array_split(x, 9))
    parts = Moments(x[:100]) + Moments(x[100:]) + Moments()
    for m in (stream, parts):
        assert m.n == 257
        np.testing.assert_allclose(m.mean, x.mean(0))
        np.testing.assert_allclose(m.covariance, np.cov(x, rowvar=False), rtol=1e-8)
        np.testing.assert_allclose(m.second_moment, x.T @ x / 257, rtol=1e-10)


def test_wrong_features_are_named():
    x = np.ones((4, 3))
    with pytest.raises(ValueError, match=r"x has 3 dimensions, y has 2"):
        frechet_distance(x, np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"at least 2 rows"):
        frechet_distance(x[:1], x)
    bad = x.copy()
    bad[1, 0] = np.nan
    with pytest.raises(ValueError, match=r"y: 1 of 4 rows have NaN"):
        kid(x, bad)
    with pytest.raises(ValueError, match=r"features n x d"):
        d_eig(x[0], x)
    with pytest.raises(ValueError, match="dimensions"):
        Moments(x).update(np.ones((2, 5)))


def test_kid_equals_torchmetrics_and_the_definition():
    x, y = _features(120, 16, 9), _features(90, 16, 10)
    k = lambda a, b: (a @ b.T / 16 + 1) ** 3
    n, m = len(x), len(y)
    slow = sum(k(x[[i]], x[[j]]).item() for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    slow += sum(k(y[[i]], y[[j]]).item() for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    slow -= 2 * k(x, y).mean()
    assert kid(x, y) == pytest.approx(slow, rel=1e-9)
    import torch
    from torchmetrics.image.kid import poly_mmd

    reference = poly_mmd(torch.tensor(x[:90]), torch.tensor(y), degree=3, gamma=None, coef=1.0)
    assert kid(x[:90], y) == pytest.approx(float(reference), rel=1e-9)
    assert kid(x, y, subset_size=60, n_subsets=200) == pytest.approx(kid(x, y), rel=0.1)
    with pytest.raises(ValueError, match="subset_size"):
        kid(x, y, subset_size=91)


def test_kid_is_unbiased_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    same = [kid(rng.normal(size=(40, 8)), rng.normal(size=(40, 8))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(200)
    x, y = _features(50, 5, 1), _features(33, 5, 2)
    whole = kid(x, y)
    monkeypatch.setattr(importlib.import_module("sst.metrics._kid"), "_BLOCK", 7)
    assert kid(x, y) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("n", [8, 100])
def test_d_eig_and_d_lea(n):
    x, y = _features(n, 20, 11), _features(50, 20, 12)
    a, b = (np.sort(np.linalg.eigvalsh(v.T @ v / len(v)))[::-1][:5] for v in (x, y))
    assert d_eig(x, y) == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-8)
    assert d_lea(x, y) == pytest.approx((((np.sqrt(a) - np.sqrt(b)) / np.sqrt(b)) ** 2).sum(), rel=1e-8)
    assert d_eig(Moments(x), Moments(y)) == pytest.approx(d_eig(x, y), rel=1e-8)
    assert d_eig(x, x) == 0
    assert d_lea(2 * y, y) == pytest.approx(5, rel=1e-8)
    with pytest.raises(ValueError, match="k=21"):
        d_eig(x, y, k=21)


def test_d_eig_with_fewer_samples_than_k():
    x = np.eye(3, 10)
    assert d_eig(x, np.zeros((4, 10))) == pytest.approx(1.0)
    assert d_lea(x, np.zeros((4, 10))) == np.inf


def test_precision_recall_against_brute_force():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(70, 4)), rng.normal(size=(60, 4)) * 0.5 + 0.4

    def covered(points, centres, k=3):
        hits = 0
        for p in points:
            for c in centres:
                radius = np.sort(np.linalg.norm(centres - c, axis=1))[k]
                if np.linalg.norm(p - c) <= radius:
                    hits += 1
                    break
        return hits / len(points)

    got = precision_recall(x, y)
    assert got.precision == pytest.approx(covered(y, x))
    assert got.recall == pytest.approx(covered(x, y))
    assert precision_recall(x, x) == (1.0, 1.0)
    far = precision_recall(x, y + 100)
    assert far == (0.0, 0.0)
    with pytest.raises(ValueError, match="k=60"):
        precision_recall(x, y, k=60)
