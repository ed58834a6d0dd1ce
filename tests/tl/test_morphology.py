from __future__ import annotations

import importlib

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest

import sst


@pytest.fixture(scope="module")
def tissue_cells():
    return sst.datasets.simulate_tissue(n_cells=150, fovs=2, seed=3).to_adata(64, 64)


def _images(n=12, size=32, seed=0):
    """Discs of known radius with a rim in the first channel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = rng.uniform(4, 7, n)
    disc = 1 / (1 + np.exp(2 * (np.hypot(y, x)[None] - radius[:, None, None])))
    images = np.stack([60 + 0 * disc, 20 + 150 * disc], axis=1)
    return images.astype(np.uint8), np.pi * radius**2


def _adata(images, **crops):
    adata = ad.AnnData(np.ones((len(images), 3), np.float32))
    adata.obs_names = [f"c{k}" for k in range(len(images))]
    adata.obsm["crops"] = images
    adata.uns["crops"] = {"channels": ["CD298/B2M", "DAPI"], "pixel_size": 0.5, "size": 32, "output_size": 32, **crops}
    return adata


def test_area_on_the_simulator(tissue_cells):
    sst.tl.morphology(tissue_cells)
    area, truth = tissue_cells.obs["crops_nucleus_area"], tissue_cells.obs["true_nucleus_area"]
    assert area.median() == pytest.approx(truth.median(), rel=0.05)
    assert np.mean(np.abs(area / truth - 1) < 0.2) > 0.95
    assert np.corrcoef(area[area.notna()], truth[area.notna()])[0, 1] > 0.95
    assert tissue_cells.uns["crops_morphology"]["area_unit"] == "um2"
    assert sum(tissue_cells.uns["crops_morphology"]["counts"].values()) == tissue_cells.n_obs


def test_slots_and_round_trip(tmp_path):
    images, truth = _images()
    adata = _adata(images)
    adata.obsm["edited"] = images
    assert sst.tl.morphology(adata, key="edited") is None
    area = adata.obs["edited_nucleus_area"].to_numpy()
    np.testing.assert_allclose(area, truth / 4, rtol=0.08)
    assert adata.obs["edited_CD298-B2M_window_mean"].to_numpy() == pytest.approx(60)
    assert list(adata.obs["edited_nucleus_status"].cat.categories)[0] == "ok"
    entry = adata.uns["edited_morphology"]
    assert entry["params"]["nucleus_channel"] == "DAPI"
    assert set(entry["columns"]) <= set(adata.obs.columns)
    for suffix in ("h5ad", "zarr"):
        path = tmp_path / f"a.{suffix}"
        getattr(adata, f"write_{suffix}")(path)
        back = getattr(ad, f"read_{suffix}")(path)
        pd.testing.assert_series_equal(back.obs["edited_nucleus_area"], adata.obs["edited_nucleus_area"])
        assert dict(back.uns["edited_morphology"]["counts"])["ok"] == 12


def test_dask_and_subset_and_copy(monkeypatch):
    monkeypatch.setattr(importlib.import_module("sst.tl._morphology"), "_CHUNK", 5)
    images, _ = _images()
    whole = sst.tl.morphology(_adata(images), copy=True)
    lazy = _adata(da.from_array(images, chunks=(4, 2, 32, 32)))
    half = np.arange(12) % 2 == 0
    sst.tl.morphology(lazy, subset=half)
    assert lazy.obs["crops_nucleus_area"].notna().to_numpy().tolist() == half.tolist()
    sst.tl.morphology(lazy, subset=~half)
    pd.testing.assert_frame_equal(lazy.obs, whole.obs)


def test_nothing_to_see_is_reported(caplog):
    images, _ = _images()
    images[:3] = 0
    adata = _adata(images)
    with caplog.at_level("INFO", logger="sst"):
        sst.tl.morphology(adata)
    assert "no nucleus in 3 of 12 crops" in caplog.text
    assert adata.obs["crops_nucleus_area"].isna().sum() == 3


def test_single_channel_and_unknown_scale():
    images, truth = _images()
    adata = _adata(images[:, 1:], channels=["anything"], pixel_size=0.0)
    sst.tl.morphology(adata)
    np.testing.assert_allclose(adata.obs["crops_nucleus_area"], truth, rtol=0.08)
    assert adata.uns["crops_morphology"]["area_unit"] == "px"


def test_errors_name_what_is_possible():
    adata = _adata(_images()[0])
    with pytest.raises(KeyError, match="edited.*Possible: 'crops'"):
        sst.tl.morphology(adata, key="edited")
    with pytest.raises(ValueError, match="backend='otsu'"):
        sst.tl.morphology(adata, backend="otsu")
    with pytest.raises(KeyError, match="nucleus_channel='DAPPI'.*Did you mean 'DAPI'"):
        sst.tl.morphology(adata, nucleus_channel="DAPPI")
    with pytest.raises(ValueError, match="needs weights"):
        sst.tl.morphology(adata, backend="cellpose")
    adata.uns["crops"]["channels"] = ["a", "b"]
    with pytest.raises(KeyError, match="say which with nucleus_channel"):
        sst.tl.morphology(adata)
