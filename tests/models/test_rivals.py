"""Rivals: what they draw, that no edit changes nothing, that they are saved as other models are."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import sst
from sst.models import FeatureRegression, Morph, NearestCell, load
from sst.models._rivals._morph import find_nucleus, morph
from sst.models._rivals._regression import ridge

SIDE, N = 32, 240
CHANNELS = ["CD298/B2M", "DAPI"]


def draw(marker, area, offset=0.0, seed=0):
    """Evenly bright windows with a bright disc, off the centre, and a neighbour in the corner."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    rng = np.random.default_rng(seed)
    radius = np.sqrt(np.asarray(area) / np.pi)[:, None, None]
    disc = 1 / (1 + np.exp(2 * (np.hypot(y - offset, x + offset)[None] - radius)))
    other = 1 / (1 + np.exp(2 * (np.hypot(y + 13, x + 13)[None] - 3)))
    level = np.asarray(marker)[:, None, None] + rng.normal(0, 1, disc.shape)
    return np.clip(np.stack([level, 10 + 150 * (disc + other)], 1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    tumor = np.arange(N) % 2 == 1
    counts = rng.poisson(np.where(tumor[:, None], [[16, 30, 8, 8]], [[8, 15, 8, 8]])).astype(np.float32)
    adata = ad.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(index=[f"c{i}" for i in range(N)]))
    adata.var_names = ["B2M", "H2AZ1", "APOA1", "TTR"]
    adata.obs["condition"] = pd.Categorical(np.where(tumor, "tumor", "normal"))
    adata.obs["split"] = np.where(np.arange(N) < 200, "train", "test")
    adata.obsm["crops"] = draw(40 * np.sqrt(counts[:, 0] / 8), 60 * np.sqrt(counts[:, 1] / 15), 1.5)
    adata.uns["crops"] = {"channels": CHANNELS, "pixel_size": 0.0, "size": SIDE}
    return adata


def test_ridge_is_ridge():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 5))
    y = x @ np.array([[1.0, 0, 0, 0, -2]]).T + rng.normal(0, 0.1, (300, 1))
    slopes, penalty = ridge(x, y)
    expected = np.linalg.solve(x.T @ x + penalty * np.eye(5), x.T @ y).T
    np.testing.assert_allclose(slopes, expected, atol=1e-10)
    np.testing.assert_allclose(slopes[0], [1, 0, 0, 0, -2], atol=0.05)
    noise = rng.normal(size=(300, 1))
    assert ridge(x, noise - noise.mean())[1] > 100  # nothing to learn: shrunk away


def test_nucleus_is_found_off_the_centre():
    centre, radius = find_nucleus(draw([40, 40], [60, 120], offset=3.0)[:, 1].astype(np.float32))
    np.testing.assert_allclose(centre, [[18.5, 12.5]] * 2, atol=0.6)
    np.testing.assert_allclose(np.pi * radius**2, [60, 120], rtol=0.15)


def test_morph_scales_the_nucleus_alone():
    images = draw([40, 40, 40], [60, 60, 60], offset=1.5)
    out = morph(images, np.array([1.0, 1.5, 0.7]), np.ones((3, 2)), nucleus_channel=1)
    np.testing.assert_array_equal(out[0], images[0])
    np.testing.assert_array_equal(out[:, 0], images[:, 0])
    np.testing.assert_array_equal(out[:, 1, :6, :6], images[:, 1, :6, :6])  # the neighbour stays
    truth = draw([40, 40, 40], [60, 90, 42], offset=1.5)
    for k in (1, 2):
        assert np.abs(out[k].astype(float) - truth[k]).mean() < 0.3 * np.abs(images[k].astype(float) - truth[k]).mean()


def test_morph_edits_toward_the_truth(cells):
    adata = cells.copy()
    rival = sst.tl.fit_rival(adata, "morph", groupby="condition")
    assert isinstance(rival, Morph)
    np.testing.assert_array_equal(rival.generate(adata), adata.obsm["crops"])  # no edit, no change
    sst.tl.edit(adata, genes=["H2AZ1"], groupby="condition", method="ot", model=rival)
    assert "generated" not in adata.obsm  # before is the crop
    measured = {
        key: sst.metrics.nucleus_features(np.asarray(adata.obsm[key]), nucleus_channel=1, channels=CHANNELS)
        for key in ("crops", "edited")
    }
    normal = (adata.obs["condition"] == "normal").to_numpy()
    area = {key: table["nucleus_area"].to_numpy() for key, table in measured.items()}
    gap = area["crops"][~normal].mean() - area["crops"][normal].mean()
    assert 0.6 < (area["edited"] - area["crops"])[normal].mean() / gap < 1.2
    marker = {key: table["CD298-B2M_window_mean"].to_numpy() for key, table in measured.items()}
    assert abs((marker["edited"] - marker["crops"]).mean()) < 2


@pytest.mark.parametrize("kind", ["nearest", "nearest_weighted"])
def test_nearest_cell_is_a_real_one_and_not_oneself(cells, kind):
    rival = sst.tl.fit_rival(cells, kind)
    assert isinstance(rival, NearestCell)
    images = rival.generate(cells)
    train = cells.obsm["crops"][:200]
    same = (images[:, None] == train[None]).all(axis=(2, 3, 4))
    assert same.any(axis=1).all()
    assert not same[np.arange(200), np.arange(200)].any()
    if kind == "nearest_weighted":  # genes that cause something count for more
        assert rival.array("weights")[:2].min() > 3 * rival.array("weights")[2:].max()
    assert rival.generate(cells, n_samples=3).shape == (N, 3, 2, SIDE, SIDE)


def test_ridge_predicts_features(cells):
    rival = sst.tl.fit_rival(cells, "ridge", features=["nucleus_area", "CD298-B2M_window_mean"])
    assert isinstance(rival, FeatureRegression)
    found = rival.predict(cells)
    true = sst.metrics.nucleus_features(cells.obsm["crops"], nucleus_channel=1, channels=CHANNELS)
    for name in found:
        assert np.corrcoef(found[name], true[name])[0, 1] > 0.9
    with pytest.raises(ValueError, match=r"features='x'.*nucleus_area"):
        sst.tl.fit_rival(cells, "ridge", features=["x"])


@pytest.mark.parametrize("kind", ["morph", "nearest", "nearest_weighted", "ridge"])
def test_round_trip(cells, kind, tmp_path):
    rival = sst.tl.fit_rival(cells, kind, out=tmp_path / kind)
    again = load(tmp_path / kind)
    assert type(again) is type(rival)
    assert again.hash == rival.hash
    assert again.config == rival.config
    if kind == "ridge":
        pd.testing.assert_frame_equal(again.predict(cells), rival.predict(cells))
    else:
        np.testing.assert_array_equal(again.generate(cells), rival.generate(cells))


def test_unknown_kind(cells):
    with pytest.raises(ValueError, match=r"kind='morf'.*Did you mean 'morph'"):
        sst.tl.fit_rival(cells, "morf")


def test_slides_are_no_causes(cells):
    """A slide that is brighter, and by chance richer in a gene that causes nothing, teaches a slope of it only without adjustment."""
    adata = cells.copy()
    bright = np.arange(N) // 2 % 2 == 1
    adata.obs["sample"] = np.where(bright, "b", "a")
    counts = adata.X.toarray()
    counts[bright, 3] += 8
    adata.X = sp.csr_matrix(counts)
    crops = adata.obsm["crops"].astype(float)
    crops[bright, 0] *= 1.5
    adata.obsm["crops"] = np.clip(crops, 0, 255).astype(np.uint8)
    slopes = {}
    for adjust in (None, "auto"):
        rival = sst.tl.fit_rival(adata, "ridge", features=["CD298-B2M_window_mean"], adjust=adjust)
        slopes[adjust] = rival.array("coefficients")[0]
    assert rival.adjusted_for == "sample"
    assert rival.shrinkage == rival.config.penalty / rival.config.n_cells
    assert slopes[None][3] > 0.1
    assert abs(slopes["auto"][3]) < 0.02
    assert slopes["auto"][0] > 0.1
    with pytest.raises(KeyError, match="slide"):
        sst.tl.fit_rival(adata, "ridge", adjust="slide")
