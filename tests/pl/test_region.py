"""Regions show what lies there: asserted on the pixels that are drawn."""

from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel

import sst

mpl.use("Agg")


@pytest.fixture(scope="module")
def slide():
    """Cells on a grid, each a bright square in channel M and in the labels."""
    rng = np.random.default_rng(0)
    height, width, step = 200, 240, 40
    image = rng.integers(0, 20, (2, height, width)).astype(np.uint16)
    labels = np.zeros((height, width), np.uint16)
    obs = []
    for k, (y, x) in enumerate((y, x) for y in range(20, height, step) for x in range(20, width, step)):
        labels[y - 8 : y + 8, x - 8 : x + 8] = k + 1
        image[0, y - 8 : y + 8, x - 8 : x + 8] += 500 + 20 * k
        image[1, y - 4 : y + 4, x - 4 : x + 4] += 900
        obs.append({"label": k + 1, "x_px": x, "y_px": y, "kind": "ab"[k % 2], "cell_id": f"c{k}"})
    obs = pd.DataFrame(obs, index=[o["cell_id"] for o in obs])
    n = 4000
    points = pd.DataFrame(
        {"x": rng.uniform(0, width, n), "y": rng.uniform(0, height, n), "gene": pd.Categorical(["g"] * n)}
    )
    table = ad.AnnData(rng.poisson(2, (len(obs), 1)).astype(np.float32), obs=obs, var=pd.DataFrame(index=["g"]))
    sdata = sd.SpatialData(
        images={"image": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=["M", "DAPI"])},
        labels={"labels": Labels2DModel.parse(labels, dims=("y", "x"))},
        points={"points": PointsModel.parse(points, feature_key="gene")},
        tables={"table": table},
    )
    adata = sst.pp.crop_cells(sdata, size=30, output_size=30)
    sst.pp.rescale_intensity(adata)
    return sdata, adata


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def pictures(ax):
    return [np.asarray(i.get_array()) for i in ax.get_images()]


def test_tissue_is_on_the_scale_of_the_crops(slide):
    sdata, adata = slide
    ax = sst.pl.region(sdata, adata=adata, bounds=(0, 0, 240, 200), channels=["M"])
    picture = pictures(ax)[0]
    assert picture.shape == (200, 240, 3)
    x, y = np.floor(adata.obsm["spatial_px"][7]).astype(int) - 15
    np.testing.assert_array_equal(picture[y : y + 30, x : x + 30, 1], adata.obsm["crops"][7, 0])


def test_real_crops_painted_in_place_change_nothing(slide):
    """i.2: crops are where they were cut, so painting them gives the tissue again, seams and all."""
    sdata, adata = slide
    bounds = (13, 17, 201, 155)
    tissue = pictures(sst.pl.region(sdata, adata=adata, bounds=bounds))[0].astype(int)
    painted = pictures(sst.pl.region(sdata, adata=adata, bounds=bounds, key="crops"))[0].astype(int)
    assert np.abs(tissue - painted).max() <= 1


def test_edited_cells_change_where_they_lie(slide):
    sdata, adata = slide
    adata = adata.copy()
    adata.obsm["edited"] = np.full_like(adata.obsm["crops"], 255)
    one = np.arange(adata.n_obs) == 8
    bounds = (0, 0, 240, 200)
    before = pictures(sst.pl.region(sdata, adata=adata, bounds=bounds))[0]
    after = pictures(sst.pl.region(sdata, adata=adata, bounds=bounds, key="edited", subset=one, feather=0.3))[0]
    x, y = np.floor(adata.obsm["spatial_px"][8]).astype(int) - 15
    assert (after[y + 6 : y + 24, x + 6 : x + 24, 1] == 255).all()
    outside = np.ones((200, 240), bool)
    outside[y : y + 30, x : x + 30] = False
    np.testing.assert_array_equal(before[outside], after[outside])
    edge = after[y + 15, x : x + 4, 1].astype(int)
    assert (np.diff(edge) > 0).all()  # feathered


@pytest.mark.parametrize("feather", [0.0, 0.3, 1.0])
def test_the_figure_shows_what_write_region_stores(slide, feather):
    """Seams are made in one place: the same pixels drawn and stored, overlaps and all."""
    sdata, adata = slide
    sdata = sd.SpatialData(images={"image": sdata["image"]}, points={"points": sdata["points"]})
    rng = np.random.default_rng(3)
    adata = adata.copy()
    adata.obsm["edited"] = rng.integers(0, 256, adata.obsm["crops"].shape).astype(np.uint8)
    adata.obsm["spatial_px"] = adata.obsm["spatial_px"] + rng.uniform(-15, 15, (adata.n_obs, 2))
    some = np.arange(adata.n_obs) % 3 != 0
    options = {"key": "edited", "subset": some, "feather": feather}
    sst.tl.write_region(sdata, adata, bounds=(10, 20, 230, 190), key_added="stored", **options)
    stored = sdata["stored"].to_numpy()
    for k, channel in enumerate(["M", "DAPI"]):
        ax = sst.pl.region(sdata, adata=adata, bounds=(10, 20, 230, 190), channels=[channel], image="image", **options)
        np.testing.assert_array_equal(pictures(ax)[0][..., 1], stored[k])


def test_cells_are_coloured_by_type_in_their_labels(slide):
    sdata, adata = slide
    ax = sst.pl.region(sdata, adata=adata, color="kind", bounds=(0, 0, 240, 200))
    overlay = pictures(ax)[1]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    colours = {
        k: mpl.colors.to_rgb(p.get_facecolor()) for k, p in zip("ab", ax.get_legend().get_patches(), strict=True)
    }
    for i in range(adata.n_obs):
        x, y = adata.obsm["spatial_px"][i].astype(int)
        np.testing.assert_allclose(overlay[y, x, :3], colours[adata.obs["kind"].iloc[i]], atol=1e-6)
    assert overlay[0, 0, 3] == 0


def test_numbers_genes_boxes_and_dots(slide):
    sdata, adata = slide
    ax = sst.pl.region(sdata, adata=adata, color="g", fill="boxes")
    (boxes,) = ax.collections
    assert len(boxes.get_paths()) == adata.n_obs
    corner = boxes.get_paths()[3].vertices.min(axis=0)
    np.testing.assert_array_equal(corner, np.floor(adata.obsm["spatial_px"][3]) - 15)
    ax = sst.pl.region(sdata, adata=adata, color="kind", fill="dots")
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), adata.obsm["spatial_px"])
    assert not sst.pl.region(sdata, adata=adata, key="crops").collections


def test_paired_cells_alone(slide):
    _, adata = slide
    ax = sst.pl.region(adata, boxes=True, channels=["DAPI"])
    x0, _, y0, _ = (*ax.get_xlim(), *sorted(ax.get_ylim()))
    picture = pictures(ax)[0]
    x, y = (np.floor(adata.obsm["spatial_px"][7]) - 15 - (x0, y0)).astype(int)
    inner = slice(y + 9, y + 21), slice(x + 9, x + 21)
    np.testing.assert_array_equal(picture[inner][..., 0], adata.obsm["crops"][7, 1, 9:21, 9:21])


def test_mistakes_are_named(slide):
    sdata, adata = slide
    with pytest.raises(KeyError, match="adata="):
        sst.pl.region(sdata)
    with pytest.raises(KeyError, match="edited"):
        sst.pl.region(sdata, adata=adata, key="edited")
    with pytest.raises(KeyError, match="knd"):
        sst.pl.region(sdata, adata=adata, color="knd")
    with pytest.raises(ValueError, match="no pixel"):
        sst.pl.region(sdata, adata=adata, bounds=(500, 0, 600, 10))
    with pytest.raises(ValueError, match="x0, y0, x1, y1"):
        sst.pl.region(sdata, adata=adata, bounds=(0, 10))
    with pytest.raises(ValueError, match="fill"):
        sst.pl.region(sdata, adata=adata, color="kind", fill="area")
    with pytest.raises(KeyError, match="channels"):
        sst.pl.region(sdata, adata=adata, channels=["CD45"])
    both = ad.concat({"s1": adata, "s2": adata}, label="sample", index_unique="-", uns_merge="same")
    with pytest.raises(ValueError, match="sample="):
        sst.pl.region(both)
    assert sst.pl.region(both, sample="s2", return_fig=True)


def test_crops_qc(slide):
    _, adata = slide
    adata = adata.copy()
    axes = sst.pl.crops_qc(adata)
    assert [ax.get_title() for ax in axes] == ["M", "DAPI", "Expression", "Cells"]
    limits = adata.uns["crops"]["limits"]
    lines = {round(float(line.get_xdata()[0]), 3) for line in axes[0].lines}
    assert {round(limits["shared_low"][0], 3), round(limits["shared_high"][0], 3)} <= lines
    counts = next(line for line in axes[2].lines if len(line.get_xdata()) == adata.n_obs)
    np.testing.assert_array_equal(counts.get_ydata(), np.asarray(adata.X.sum(axis=1)).ravel())
    assert axes[3].patches[0].get_width() == adata.n_obs
    del adata.layers["segmented"], adata.uns["crops"]["limits"]
    assert len(sst.pl.crops_qc(adata, n_cells=5)) == 4
