"""The paper's intensity scale, against the formula written out."""

from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pytest

import sst


def make(dtype=np.uint16, n=50, seed=0):
    rng = np.random.default_rng(seed)
    crops = (rng.gamma(2, 300, (n, 2, 12, 12)) * rng.uniform(0.5, 2, (n, 1, 1, 1))).astype(dtype)
    adata = ad.AnnData(np.zeros((n, 1), np.float32))
    adata.obs["slide"] = rng.choice(["normal", "tumor"], n)
    adata.obsm["crops"] = crops
    return adata


def by_the_formula(crops, slide):
    low = {g: np.quantile(crops[slide == g].min(axis=(2, 3)), 0.05, axis=0) for g in set(slide)}
    high = {g: np.quantile(crops[slide == g].max(axis=(2, 3)), 0.95, axis=0) for g in set(slide)}
    a, b = np.min(list(low.values()), axis=0), np.max(list(high.values()), axis=0)
    out = np.empty(crops.shape, np.uint8)
    for i, g in enumerate(slide):
        for c in range(crops.shape[1]):
            x = np.clip(crops[i, c].astype(float), low[g][c], high[g][c])
            out[i, c] = np.rint((x - a[c]) / (b[c] - a[c]) * 255)
    return out, low, high, a, b


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("lazy", [False, True])
def test_formula(dtype, lazy):
    adata = make(dtype)
    expected, low, high, a, b = by_the_formula(adata.obsm["crops"], adata.obs["slide"].to_numpy())
    if lazy:
        adata.obsm["crops"] = da.from_array(adata.obsm["crops"], chunks=(7, 1, 12, 5))
    assert sst.pp.rescale_intensity(adata, "slide") is None
    assert hasattr(adata.obsm["crops"], "dask") == lazy
    assert adata.obsm["crops"].dtype == np.uint8
    got = np.asarray(adata.obsm["crops"]).astype(int)
    # the order of the operations may round a value that lies half way to the other side
    assert np.abs(got - expected).max() <= 1
    assert (got == expected).mean() > 0.9999
    limits = adata.uns["crops"]["limits"]
    assert limits["groupby"] == "slide"
    for g in ("normal", "tumor"):
        np.testing.assert_allclose(limits["low"][g], low[g])
        np.testing.assert_allclose(limits["high"][g], high[g])
    np.testing.assert_allclose(limits["shared_low"], a)
    np.testing.assert_allclose(limits["shared_high"], b)


def test_one_group_spans_the_whole_scale():
    adata = make()
    sst.pp.rescale_intensity(adata)
    crops = adata.obsm["crops"]
    assert crops.min() == 0
    assert crops.max() == 255
    assert adata.uns["crops"]["limits"]["groupby"] == ""


def test_known_limits_and_copy():
    adata = make()
    other = sst.pp.rescale_intensity(adata, "slide", copy=True)
    assert adata.obsm["crops"].dtype == np.uint16
    assert "crops" not in adata.uns
    part = adata[:10].copy()
    sst.pp.rescale_intensity(part, limits=other.uns["crops"]["limits"])
    np.testing.assert_array_equal(part.obsm["crops"], other.obsm["crops"][:10])
    with pytest.raises(ValueError, match="rescaled before"):
        sst.pp.rescale_intensity(other, "slide")
    third = adata.copy()
    third.obs["slide"] = "metastasis"
    with pytest.raises(ValueError, match="metastasis"):
        sst.pp.rescale_intensity(third, limits=other.uns["crops"]["limits"])


def test_mistakes_are_named():
    adata = make()
    with pytest.raises(KeyError, match="slides"):
        sst.pp.rescale_intensity(adata, "slides")
    with pytest.raises(KeyError, match="crops"):
        sst.pp.rescale_intensity(adata, key="images")
    adata.obs["slide"] = np.resize(["a/b", "a-b"], adata.n_obs)
    with pytest.raises(ValueError, match="a/b"):
        sst.pp.rescale_intensity(adata, "slide")


def test_groups_of_any_name_keep_their_limits(tmp_path):
    adata, plain = make(), make()
    plain.obs["slide"] = np.resize(["normal", "edge"], plain.n_obs)
    adata.obs["slide"] = np.resize(["normal", "tumor/edge"], adata.n_obs)
    for one in (adata, plain):
        sst.pp.rescale_intensity(one, "slide")
    assert (np.asarray(adata.obsm["crops"]) == np.asarray(plain.obsm["crops"])).all()
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = make()
    again.obs["slide"] = adata.obs["slide"].to_numpy()
    sst.pp.rescale_intensity(again, limits=ad.read_h5ad(tmp_path / "a.h5ad").uns["crops"]["limits"])
    assert (np.asarray(again.obsm["crops"]) == np.asarray(adata.obsm["crops"])).all()


def test_a_channel_without_contrast_becomes_zero():
    adata = make()
    adata.obsm["crops"][:, 1] = 7
    sst.pp.rescale_intensity(adata)
    assert (adata.obsm["crops"][:, 1] == 0).all()
    assert adata.obsm["crops"][:, 0].max() == 255


def test_stores_joined_stay_lazy_and_survive(tmp_path):
    parts = {}
    for k, g in enumerate(("normal", "tumor")):
        part = make(seed=k)
        del part.obs["slide"]
        part.uns["crops"] = {"params": {"size": 12}, "channels": ["M", "D"], "size": 12, "output_size": 12}
        sst.io.write_store(part, tmp_path / f"{g}.zarr")
        parts[g] = sst.io.open_store(tmp_path / f"{g}.zarr")
    adata = ad.concat(parts, label="condition", index_unique="-", uns_merge="same")
    raw = np.asarray(adata.obsm["crops"])
    sst.pp.rescale_intensity(adata, "condition")
    expected = by_the_formula(raw, adata.obs["condition"].astype(str).to_numpy())[0]
    assert np.abs(np.asarray(adata.obsm["crops"]).astype(int) - expected).max() <= 1
    reader = sst.io.crop_reader(adata)
    assert type(reader).__name__ == "RowwiseReader"  # memory map and table, no dask
    rows = np.array([70, 3, 99, 0, 3])
    np.testing.assert_array_equal(reader.take(rows), np.asarray(adata.obsm["crops"])[rows])
    np.testing.assert_array_equal(reader.block(40, 60), np.asarray(adata.obsm["crops"])[40:60])
    adata.write_zarr(tmp_path / "both.zarr")
    back = ad.read_zarr(tmp_path / "both.zarr")
    np.testing.assert_array_equal(back.obsm["crops"], np.asarray(adata.obsm["crops"]))
    assert list(back.uns["crops"]["limits"]["shared_low"]) == adata.uns["crops"]["limits"]["shared_low"]
    assert list(back.uns["crops"]["channels"]) == ["M", "D"]


def test_limits_are_those_of_training_cells():
    adata = make(n=60)
    adata.obs["split"] = np.where(np.arange(60) < 40, "train", "test")
    adata.obsm["crops"][40:] //= 3  # held-out cells are darker: nothing of them may leak into the scale
    alone = adata[:40].copy()
    for data in (adata, alone):
        sst.pp.rescale_intensity(data, "slide")
    assert adata.uns["crops"]["limits"] == alone.uns["crops"]["limits"]
    every = make(n=60)
    every.obsm["crops"][40:] //= 3
    sst.pp.rescale_intensity(every, "slide", fit_on="all")
    assert every.uns["crops"]["limits"] != alone.uns["crops"]["limits"]
    with pytest.raises(ValueError, match="fit_on='test'"):
        sst.pp.rescale_intensity(make(), fit_on="test")
