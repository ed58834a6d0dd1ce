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
        np.testing.assert_allclose(limits["low"][g], low[g], rtol=1e-6)  # numpy's quantile of float32 is one too
        np.testing.assert_allclose(limits["high"][g], high[g], rtol=1e-6)
    np.testing.assert_allclose(limits["shared_low"], a, rtol=1e-6)
    np.testing.assert_allclose(limits["shared_high"], b, rtol=1e-6)


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


def slides(gains, *, offsets=None, own=None, n=60, seed=0):
    """Slides of like cells in a light of their own, names ``<group>_<k>``; ``own``: a true factor of the groups."""
    rng = np.random.default_rng(seed)
    parts, names = [], []
    for slide, gain in gains.items():
        spots = rng.gamma(8, 60, (n, 2, 1, 1)) * np.exp(-((np.arange(12) - 6) ** 2) / 8)[:, None]
        signal = spots * (own or {}).get(slide[0], 1.0)
        parts.append((offsets or {}).get(slide, 40) + gain * signal + rng.normal(0, 1, (n, 2, 12, 12)))
        names += [slide] * n
    adata = ad.AnnData(np.zeros((len(names), 1), np.float32))
    adata.obs["slide"] = names
    adata.obs["condition"] = [s[0] for s in names]
    adata.obsm["crops"] = np.clip(np.concatenate(parts), 0, 65535).astype(np.uint16)
    return adata


def levels(adata, by="slide"):
    top = np.asarray(adata.obsm["crops"]).max(axis=(2, 3)).astype(float).mean(axis=1)
    return {name: top[(adata.obs[by] == name).to_numpy()].mean() for name in adata.obs[by].unique()}


GAINS = {"n_1": 0.8, "n_2": 1.0, "n_3": 1.25, "t_1": 0.7, "t_2": 1.4, "t_3": 1.02}


def test_slides_of_a_group_become_alike_and_groups_stay_apart():
    adata = slides(GAINS, offsets={"n_2": 90, "t_3": 20}, own={"t": 1.5})
    plain = adata.copy()
    sst.pp.rescale_intensity(plain, "slide")
    sst.pp.rescale_intensity(adata, "condition", batch_key="slide")
    found, before = levels(adata), levels(plain)
    for group in "nt":
        mine, own = ([v for k, v in x.items() if k[0] == group] for x in (found, before))
        assert max(mine) / min(mine) < 1.09 < 1.4 < max(own) / min(own)
    assert levels(adata, "condition")["t"] / levels(adata, "condition")["n"] == pytest.approx(1.5, abs=0.08)
    dark = np.asarray(adata.obsm["crops"])[:, :, 0, 0]  # the backgrounds of all slides are one
    assert max(dark[(adata.obs["slide"] == s).to_numpy()].mean() for s in GAINS) < 4
    limits = adata.uns["crops"]["limits"]
    assert (limits["groupby"], limits["kept"]) == ("slide", "condition")
    gains = np.array([limits["gain"][s] for s in GAINS])
    np.testing.assert_allclose(np.log(gains[:3]).mean(axis=0), 0, atol=1e-9)  # 0 on average within each group
    np.testing.assert_allclose(np.log(gains[3:]).mean(axis=0), 0, atol=1e-9)


def test_without_groups_all_slides_become_alike():
    adata = slides(GAINS, own={"t": 1.5})
    sst.pp.rescale_intensity(adata, batch_key="slide")
    found = list(levels(adata).values())
    assert max(found) / min(found) < 1.09


def test_slides_with_both_groups_tell_the_groups_apart_from_the_light():
    """Where slides hold both groups their light is known, also if one group's cells are mostly on bright slides."""
    adata = slides({"n_1": 1.0, "t_1": 1.0, "n_2": 2.0, "t_2": 2.0}, own={"t": 1.3})
    keep = np.ones(adata.n_obs, bool)
    keep[np.flatnonzero(adata.obs["slide"] == "n_2")[10:]] = False
    adata = adata[keep].copy()
    adata.obs["chip"] = [s[-1] for s in adata.obs["slide"]]
    sst.pp.rescale_intensity(adata, "condition", batch_key="chip", high=1.0)
    found = levels(adata)
    assert found["t_1"] / found["n_1"] == pytest.approx(1.3, rel=0.1)
    assert found["t_2"] / found["t_1"] == pytest.approx(1, rel=0.06)


def test_a_slide_held_out_is_brought_to_its_group_and_moves_no_other():
    adata = slides(GAINS)
    adata.obs["split"] = np.where(np.isin(adata.obs["slide"], ["n_3", "t_3"]), "test", "train")
    other = adata.copy()
    raw = other.obsm["crops"].astype(float)
    raw[(other.obs["slide"] == "n_3").to_numpy()] *= 0.5
    other.obsm["crops"] = raw.astype(np.uint16)
    for one in (adata, other):
        sst.pp.rescale_intensity(one, "condition", batch_key="slide")
    found = levels(adata)
    assert found["n_3"] / found["n_1"] == pytest.approx(1, rel=0.06)
    gains = [one.uns["crops"]["limits"]["gain"] for one in (adata, other)]
    for slide in ("n_1", "n_2", "t_1"):
        np.testing.assert_allclose(gains[0][slide], gains[1][slide])
    assert gains[1]["n_3"][0] > 1.8 * gains[0]["n_3"][0]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_gains_of_slides_are_applied_again_lazily_and_to_whole_pictures(dtype, tmp_path):
    from sst.io.crops import on_crop_scale

    adata = slides(GAINS)
    adata.obsm["crops"] = adata.obsm["crops"].astype(dtype)
    again, lazy = adata.copy(), adata.copy()
    raw = adata.obsm["crops"].copy()
    sst.pp.rescale_intensity(adata, "condition", batch_key="slide")
    adata.write_h5ad(tmp_path / "a.h5ad")
    limits = ad.read_h5ad(tmp_path / "a.h5ad").uns["crops"]["limits"]
    sst.pp.rescale_intensity(again, limits=limits)
    np.testing.assert_array_equal(again.obsm["crops"], adata.obsm["crops"])
    lazy.obsm["crops"] = da.from_array(lazy.obsm["crops"], chunks=(7, 1, 12, 5))
    sst.pp.rescale_intensity(lazy, "condition", batch_key="slide")
    np.testing.assert_array_equal(np.asarray(lazy.obsm["crops"]), adata.obsm["crops"])
    for row in (0, 200):
        slide = adata.obs["slide"].iloc[row]
        np.testing.assert_array_equal(on_crop_scale(raw[row], limits, slide), adata.obsm["crops"][row])


def test_what_slides_cannot_be_brought_to(caplog):
    adata = slides({"n_1": 1.0, "t_1": 1.0})
    with pytest.raises(KeyError, match="batch_key"):
        sst.pp.rescale_intensity(adata.copy(), "condition", batch_key="chip")
    flat = adata.copy()
    flat.obsm["crops"][:60, 1] = 7
    with caplog.at_level("WARNING", "sst"):
        sst.pp.rescale_intensity(flat, "condition", batch_key="slide")
    assert "no signal above its background" in caplog.text
    assert flat.uns["crops"]["limits"]["gain"]["t_1"][1] == 1


@pytest.mark.parametrize("channels", [["DAPI"], ["DAPI", "CD298/B2M"]])
def test_slides_cut_with_other_channels_are_refused(channels):
    tissue = sst.datasets.simulate_tissue(n_cells=12, n_genes=16, fovs=1, seed=0)
    cells = tissue.to_adata(size=32, output_size=16, channels=["CD298/B2M", "DAPI"])
    others = tissue.to_adata(size=32, output_size=16, channels=channels)
    cells.uns["crops"]["params"] = others.uns["crops"]["params"] = {"size": 32}  # as sst.pp.crop_cells writes it
    adata = ad.concat({"normal": cells, "tumor": others}, label="slide", index_unique="-", uns_merge="same")
    with pytest.raises(ValueError, match="different ones, or the same in another order"):
        sst.pp.rescale_intensity(adata, "slide")


def test_what_concat_left_out_is_said(caplog):
    sst.pp.rescale_intensity(make(), "slide")
    assert "uns_merge='same'" in caplog.text
