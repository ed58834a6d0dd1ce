from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pytest

import sst
from sst.metrics import frechet_distance, kid
from sst.tl._measuring._features import iter_images, sample_features


def _adata(n=60, size=16, seed=0):
    """Two groups of images that differ in brightness; the edit carries half of the normal ones over."""
    rng = np.random.default_rng(seed)
    group = np.repeat(["normal", "tumor"], n)
    level = np.where(group == "normal", 60.0, 140.0)

    def draw(level):
        base = (
            level[:, None, None, None] + rng.normal(0, 12, (2 * n, 2, 1, 1)) + rng.normal(0, 8, (2 * n, 2, size, size))
        )
        return np.clip(base, 0, 255).astype(np.uint8)

    adata = ad.AnnData(np.ones((2 * n, 3), np.float32))
    adata.obs["condition"] = group
    adata.obs["condition"] = adata.obs["condition"].astype("category")
    adata.obsm["crops"] = draw(level)
    adata.obsm["generated"] = draw(level + 5)
    adata.obsm["edited"] = draw(np.where(group == "normal", 130, 70))
    adata.uns["crops"] = {"channels": ["B2M", "DAPI"], "pixel_size": 0.0}
    return adata


def _row(table, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_an_edit_brings_cells_nearer_to_the_other_group(tmp_path):
    adata = _adata()
    sst.tl.distances(adata, metrics=["frechet", "kid", "d_eig", "d_lea", "precision", "recall"])
    table = adata.uns["distances"]["table"]
    assert set(table["key"]) == {"crops", "generated", "edited"}
    assert len(table) == 3 * 2 * 2 * 6
    assert (table["n"] == 30).all()
    for metric in ("frechet", "kid"):
        before = _row(table, key="generated", source="normal", reference="tumor", metric=metric)
        after = _row(table, key="edited", source="normal", reference="tumor", metric=metric)
        assert after["mean"] + 3 * after["sd"] < before["mean"]
        own = _row(table, key="crops", source="normal", reference="normal", metric=metric)
        assert own["mean"] == pytest.approx(own["floor"], abs=1e-9 + 0.5 * abs(own["floor"]) + 3 * own["sd"])
    assert "pixel-pca" in table["features"].iloc[0]
    for suffix in ("h5ad", "zarr"):
        getattr(adata, f"write_{suffix}")(tmp_path / f"a.{suffix}")
        back = getattr(ad, f"read_{suffix}")(tmp_path / f"a.{suffix}")
        assert back.uns["distances"]["table"]["mean"].to_numpy() == pytest.approx(table["mean"].to_numpy())


def test_values_against_the_definition():
    adata = _adata(n=20)

    def pixels(x):
        return x.mean((2, 3))

    sst.tl.distances(adata, features=pixels, repeats=1, keys=["generated"], metrics=["frechet", "kid"], seed=5)
    table = adata.uns["distances"]["table"]
    rng = np.random.default_rng(5)
    normal, tumor = rng.permutation(np.arange(20)), rng.permutation(np.arange(20, 40))
    crops, made = pixels(adata.obsm["crops"]), pixels(adata.obsm["generated"])
    got = _row(table, source="normal", reference="tumor", metric="frechet")
    assert got["mean"] == pytest.approx(frechet_distance(crops[tumor[:10]], made[normal[:10]]))
    assert got["floor"] == pytest.approx(frechet_distance(crops[tumor[:10]], crops[tumor[10:]]))
    own = _row(table, source="normal", reference="normal", metric="kid")
    assert own["mean"] == pytest.approx(kid(crops[normal[10:]], made[normal[:10]]))
    assert got["features"] == "pixels"


def test_streaming_equals_keeping():
    adata = _adata(n=40)
    draws = {"a": np.arange(0, 80, 2), "b": np.arange(5, 50), "none": np.zeros(0, int)}
    space = sst.metrics.NamedFunction(lambda x: x.mean((2, 3)), name="mean")
    for images in (adata.obsm["crops"], da.from_array(adata.obsm["crops"], chunks=(7, 2, 16, 16))):
        kept = sample_features(space, images, draws)
        small = sample_features(space, images, draws, keep=10)
        assert set(kept) == {"a", "b"}
        assert len(small["b"].vectors) == 10
        np.testing.assert_allclose(small["b"].moments.mean, kept["b"].vectors.mean(0))
        assert frechet_distance(small["a"].gaussian, small["b"].gaussian) == pytest.approx(
            frechet_distance(kept["a"].gaussian, kept["b"].gaussian), rel=1e-6
        )
    parts = list(iter_images(adata.obsm["crops"], draws["b"], chunk=8))
    assert [len(r) for r, _ in parts] == [8, 8, 8, 8, 8, 5]


def test_one_directional_edit_and_subset():
    adata = _adata()
    adata.uns["edited"] = {"params": {"source": "normal", "target": "tumor"}}
    mask = np.arange(120) % 3 > 0
    sst.tl.distances(adata, subset=mask, metrics=["frechet"], repeats=2, n_max=8)
    table = adata.uns["distances"]["table"]
    assert set(table.loc[table["key"] == "edited", "source"]) == {"normal"}
    assert set(table.loc[table["key"] == "generated", "source"]) == {"normal", "tumor"}
    assert (table["n"] == 8).all()


def test_morphology_as_features():
    adata = sst.datasets.simulate_tissue(n_cells=60, fovs=1, seed=0).to_adata(64, 32)
    sst.tl.distances(adata, features="morphology", metrics=["frechet"], repeats=2)
    table = adata.uns["distances"]["table"]
    other, own = table[table["relation"] == "other"]["mean"], table[table["relation"] == "own"]["mean"]
    assert other.min() > own.max()
    assert table["features"].iloc[0].startswith("morphology (")


def test_errors():
    adata = _adata()
    with pytest.raises(ValueError, match="features='fid'"):
        sst.tl.distances(adata, features="fid")
    with pytest.raises(KeyError, match="no CLIP was trained"):
        sst.tl.distances(adata, features="clip")
    with pytest.raises(ValueError, match="metric='fid'"):
        sst.tl.distances(adata, metrics=["fid"])
    with pytest.raises(KeyError, match="groupby='slide'"):
        sst.tl.distances(adata, groupby="slide")
    with pytest.raises(ValueError, match="at least 4"):
        sst.tl.distances(adata[[0, 1, 100, 101, 102]].copy())


def test_samples_that_use_a_group_up_are_whole_fields():
    from sst.tl._measuring._distance import _order

    rows, fields = np.arange(5, 65), np.repeat([f"f{i}" for i in range(13)], 5)
    order = _order(rows, 30, fields, np.random.default_rng(0))
    assert sorted(order) == rows.tolist()
    named = fields[order]
    assert (named[1:] != named[:-1]).sum() == 11  # each of the 12 fields in one piece
    mixed = fields[_order(rows, 10, fields, np.random.default_rng(0))]
    assert (mixed[1:] != mixed[:-1]).sum() > 30
    assert sorted(_order(rows, 30, None, np.random.default_rng(0))) == rows.tolist()
