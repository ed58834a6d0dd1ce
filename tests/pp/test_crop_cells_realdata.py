"""Crops and counts of the small real bundles equal what is cut and counted from the vendor's own files, every cell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile

import sst

pytestmark = [pytest.mark.realdata, pytest.mark.filterwarnings("ignore")]


def check(adata, image, x, y, gene, size):
    """``x, y`` in pixels of ``image`` (c, y, x), ``gene`` names; both as read from the vendor's files."""
    column = {g: i for i, g in enumerate(adata.var_names)}
    code = np.array([column.get(g, -1) for g in gene])
    assert adata.n_obs > 0
    for i in range(adata.n_obs):
        x0, y0 = np.floor(adata.obsm["spatial_px"][i]).astype(int) - size // 2
        np.testing.assert_array_equal(np.asarray(adata.obsm["crops"][i]), image[:, y0 : y0 + size, x0 : x0 + size])
        inside = (x >= x0) & (x < x0 + size) & (y >= y0) & (y < y0 + size) & (code >= 0)
        expected = np.bincount(code[inside], minlength=adata.n_vars)
        np.testing.assert_array_equal(adata.X[i].toarray().ravel(), expected)


@pytest.mark.parametrize("stored", [False, True])
def test_xenium_breast(realdata, tmp_path, stored):
    outs = realdata / "xenium_breast_v1" / "outs"
    sdata = sst.pp.read_xenium(outs)
    tx = pd.read_parquet(outs / "transcripts.parquet")
    tx = tx[tx["qv"] >= 20]
    names = tx["feature_name"].map(lambda v: v.decode() if isinstance(v, bytes) else v)
    adata = sst.pp.crop_cells(
        sdata, size=96, output_size=96, image="morphology_mip", store=tmp_path / "x.zarr" if stored else None
    )
    image = tifffile.imread(outs / "morphology_mip.ome.tif").reshape(1, 763, 899)
    px = tx[["x_location", "y_location"]].to_numpy(dtype=float) / 0.2125
    check(adata, image, px[:, 0], px[:, 1], names, 96)
    # cells whose window is wholly on the image, and no others
    boundary = pd.read_parquet(outs / "nucleus_boundaries.parquet")
    centre = boundary.groupby("cell_id")[["vertex_x", "vertex_y"]].apply(lambda v: v.mean()) / 0.2125
    own = adata.obsm["spatial_px"]
    known = adata.obs["cell_id"].astype(int).isin(centre.index).to_numpy()
    of_vendor = centre.loc[adata.obs["cell_id"].astype(int)[known]].to_numpy()
    assert np.abs(own[known] - of_vendor).max() < 2  # px: the reader's own way to average may differ a little
    assert adata.uns["crops"]["pixel_size"] == pytest.approx(0.2125)
    assert adata.n_obs + adata.uns["crops"]["report"]["dropped_outside_image"] == 122


def test_xenium_ileum(realdata):
    outs = realdata / "xenium_ileum_tiny" / "Xenium_Prime_Mouse_Ileum_tiny_outs"
    sdata = sst.pp.read_xenium(outs)
    adata = sst.pp.crop_cells(sdata, size=96, output_size=96, pad=True)
    tx = pd.read_parquet(outs / "transcripts.parquet")
    tx = tx[tx["qv"] >= 20]
    px = tx[["x_location", "y_location"]].to_numpy(dtype=float) / 0.2125
    image = np.asarray(sdata.images["morphology_focus"]["scale0"]["image"].data)
    edge = 96
    wide = np.pad(image, ((0, 0), (edge, edge), (edge, edge)))
    shifted = adata.copy()
    shifted.obsm["spatial_px"] = adata.obsm["spatial_px"] + edge
    check(shifted, wide, px[:, 0] + edge, px[:, 1] + edge, tx["feature_name"].astype(str), 96)
    assert adata.n_obs == 23
    assert adata.X.sum() > 0


@pytest.mark.parametrize("size", [64, 101])
def test_cosmx_lung(realdata, size):
    import imageio.v3 as iio

    folder = realdata / "cosmx_lung12" / "Lung12"
    sdata = sst.pp.read_cosmx(folder)
    adata = sst.pp.crop_cells(sdata, size=size, output_size=size)
    tx = pd.read_csv(folder / "Lung12_tx_file.csv")
    for fov in (2, 3):
        part = adata[(adata.obs["fov"] == f"F{fov:03d}").to_numpy()]
        image = np.moveaxis(iio.imread(folder / "CellComposite" / f"CellComposite_F{fov:03d}.jpg"), -1, 0)
        here = tx[tx["fov"] == fov]
        # y points up; the reader found by how much the vendor's positions are off the pixels, from the labels
        shift = sdata.attrs["sst"]["read"]["shift"]
        x = here["x_local_px"].to_numpy() + shift[0]
        y = image.shape[1] - here["y_local_px"].to_numpy() + shift[1]
        check(part, image, x, y, here["target"], size)
    assert adata.n_obs > 70


@pytest.mark.parametrize("kind", ["fov", "stitched", "nucleus", "cell"])
def test_a_query_leaves_crops_as_they_are(realdata, kind):
    import spatialdata as sd

    if kind in ("fov", "stitched"):
        sdata = sst.pp.read_cosmx(realdata / "cosmx_lung12" / "Lung12", stitch=kind == "stitched")
        how = {"size": 48, "output_size": 48}
    else:
        sdata = sst.pp.read_xenium(realdata / "xenium_breast_v1" / "outs")
        how = {"size": 48, "output_size": 48, "center": kind, "image": "morphology_mip"}
    whole = sst.pp.crop_cells(sdata, **how)
    low, high = whole.obsm["spatial"].min(axis=0), whole.obsm["spatial"].max(axis=0)
    rng, compared = np.random.default_rng(0), 0
    for _ in range(3):
        a, b = low + rng.uniform(0, 0.3, 2) * (high - low), high - rng.uniform(0, 0.3, 2) * (high - low)
        if kind in ("nucleus", "cell"):  # with few transcripts the middle of a pixel cannot be told from the one before
            a = np.floor(a) + rng.choice([0.0, 0.2, 0.8], 2)
        part = sd.bounding_box_query(
            sdata, axes=("x", "y"), min_coordinate=list(a), max_coordinate=list(b), target_coordinate_system="global"
        )
        moved = sst.pp.crop_cells(part, **how)
        there = whole[moved.obs_names]
        np.testing.assert_array_equal(np.asarray(moved.obsm["crops"]), np.asarray(there.obsm["crops"]))
        assert (moved.X != there.X).nnz == 0
        np.testing.assert_allclose(moved.obsm["spatial"], there.obsm["spatial"], atol=1e-4)
        compared += moved.n_obs
    assert compared > 50
