"""MERSCOPE and Visium HD, as spatialdata_io reads them, through the whole path."""

from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pytest
import spatialdata_io
from vendors import FIRST_ENTITY, MICRONS_PER_PIXEL, merscope_is_read, small_tissue, write_merscope, write_visium_hd

import sst
from sst.pl._drawing import to_rgb
from sst.train import EditorConfig, GANConfig

mpl.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore")
TINY = {
    "discriminator__channel_base": 64, "discriminator__channel_max": 8, "discriminator__embed_dim": 8,
    "fit__batch_size": 8, "fit__iterations": 2,
}  # fmt: skip
GROUPS = ("normal", "tumor")


@pytest.fixture(scope="module")
def tissue():
    return small_tissue()


@pytest.fixture(scope="module")
def merscope(tissue, tmp_path_factory):
    if not merscope_is_read():
        pytest.skip("spatialdata-io does not read MERSCOPE with this anndata")
    folder = tmp_path_factory.mktemp("merscope")
    return {g: spatialdata_io.merscope(write_merscope(tissue, g, folder / g)) for g in GROUPS}


@pytest.fixture(scope="module")
def visium_hd(tissue, tmp_path_factory):
    folder = tmp_path_factory.mktemp("visium_hd")
    read = {}
    for g in GROUPS:
        outs = write_visium_hd(tissue, g, folder / g)
        read[g] = spatialdata_io.visium_hd(outs, load_segmentations_only=False)
    return read


def paired(slides, **options):
    parts = {g: sst.pp.crop_cells(sdata, size=64, output_size=32, **options) for g, sdata in slides.items()}
    adata = ad.concat(parts, label="condition", index_unique="-", uns_merge="same")
    sst.pp.train_test_split(adata, by="tile")
    return adata


def whole_path(adata, out):
    """Rescale, train, edit and draw; returns the edited object and the transition of two of its cells."""
    sst.pp.rescale_intensity(adata, groupby="condition")
    editor = EditorConfig.preset("demo").replace(editor__width=4, editor__width_max=8, editor__code_dim=8, **TINY)
    gan = GANConfig.preset("demo").replace(
        generator__channel_base=64, generator__channel_max=8, generator__z_dim=8, generator__w_dim=8,
        generator__gene_width=8, **TINY,
    )  # fmt: skip
    sst.tl.train_gan(adata, config=gan, out=out / "gan")
    sst.tl.edit(adata, genes=["HLA-A"], key_added="drawn")
    sst.tl.train_editor(adata, config=editor, out=out / "editor")
    sst.tl.edit(adata, genes=["HLA-A"])
    for key in ("crops", "edited"):
        sst.tl.morphology(adata, key=key)
    moved = sst.tl.transition(adata, steps=3, n_cells=2)
    sst.tl.distances(adata)
    sst.pl.gallery(adata)
    sst.pl.crops_qc(adata)
    sst.pl.expression_shift(adata)
    sst.pl.morphology(adata)
    sst.pl.distances(adata)
    sst.pl.transition(moved)
    return adata, moved


def test_merscope_is_cut_as_the_tissue_is(tissue, merscope):
    adata = sst.pp.crop_cells(merscope["normal"], size=64, output_size=32, channels=["Cellbound1", "DAPI"])
    truth = tissue.to_adata(size=64, output_size=32)
    truth = truth[truth.obs["condition"] == "normal"]
    names = [str(FIRST_ENTITY + label) for label in truth.obs["label"]]
    assert set(names) == set(adata.obs_names)
    same = adata[names]
    assert np.abs(same.X - truth[:, same.var_names].X).sum() == 0
    assert np.abs(same.layers["segmented"] - truth[:, same.var_names].layers["segmented"]).sum() == 0
    away = np.abs(same.obsm["spatial_px"] - truth.obsm["spatial_px"])
    assert away.max() < 1  # the simulator's table has whole pixels
    assert adata.uns["crops"]["pixel_size"] == pytest.approx(2 * MICRONS_PER_PIXEL)
    assert "brightfield" not in adata.uns["crops"]


def test_merscope_without_polygons_takes_the_table_for_micrometres(tissue, merscope, tmp_path):
    sdata = spatialdata_io.merscope(
        write_merscope(tissue, "normal", tmp_path, boundaries=False), cells_boundaries=False
    )
    adata = sst.pp.crop_cells(sdata, size=64, output_size=32)
    known = sst.pp.crop_cells(merscope["normal"], size=64, output_size=32)
    np.testing.assert_allclose(adata.obsm["spatial_px"], known.obsm["spatial_px"], atol=1e-6)


def test_merscope_the_whole_path(merscope, tmp_path):
    adata, _ = whole_path(paired(merscope), tmp_path)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert ad.read_h5ad(tmp_path / "cells.h5ad").obs["EntityID"].nunique() > 1
    assert adata.obsm["edited"].shape == adata.obsm["crops"].shape
    assert (adata.obs["crops_nucleus_status"] == "ok").mean() > 0.5
    sst.tl.write_region(merscope["normal"], adata[adata.obs["condition"] == "normal"], key="edited")
    sst.pl.region(merscope["normal"], adata=adata[adata.obs["condition"] == "normal"], key="edited")


def test_visium_hd_bins_are_cells(tissue, visium_hd):
    sdata = visium_hd["normal"]
    adata = sst.pp.crop_cells(sdata, size=64, expression="cell", table_key="square_008um", output_size=64)
    about = adata.uns["crops"]
    assert about["brightfield"] is True
    assert about["channels"] == ["r", "g", "b"]
    assert about["params"]["coordinate_system"] == "normal"
    assert about["pixel_size"] == pytest.approx(tissue.config.pixel_size)
    table = sdata["square_008um"]
    assert np.abs(adata.X - table[adata.obs_names].X).sum() == 0
    np.testing.assert_allclose(adata.obsm["spatial_px"], table[adata.obs_names].obsm["spatial"])
    picture = np.asarray(sdata["normal_full_image"]["scale0"]["image"])
    x, y = np.floor(adata.obsm["spatial_px"][7]).astype(int) - 32
    np.testing.assert_array_equal(adata.obsm["crops"][7], picture[:, y : y + 64, x : x + 64])
    small = sst.pp.crop_cells(
        sdata, size=32, expression="cell", table_key="square_008um", output_size=32, image="normal_hires_image"
    )
    assert small.uns["crops"]["pixel_size"] == pytest.approx(2 * tissue.config.pixel_size)
    assert np.abs(small.obsm["spatial_px"] * 2 - table[small.obs_names].obsm["spatial"]).max() < 1e-6


def test_brightfield_can_be_said(visium_hd):
    options = {"size": 32, "output_size": 32, "expression": "cell", "table_key": "square_016um"}
    no = sst.pp.crop_cells(visium_hd["normal"], brightfield=False, **options)
    assert "brightfield" not in no.uns["crops"]
    with pytest.raises(ValueError, match="three 8-bit channels"):
        sst.pp.crop_cells(visium_hd["normal"], brightfield=True, channels=["r"], **options)


def test_colours_are_rescaled_together_and_drawn_as_they_are(visium_hd):
    adata = paired(visium_hd, expression="cell", table_key="square_008um")
    raw = np.asarray(adata.obsm["crops"])
    sst.pp.rescale_intensity(adata, groupby="condition")
    limits = adata.uns["crops"]["limits"]
    assert all(len(set(limits[side][g])) == 1 for side in ("low", "high") for g in GROUPS)
    made = np.asarray(adata.obsm["crops"])
    order = raw.mean(axis=(0, 2, 3)).argsort()
    assert (made.mean(axis=(0, 2, 3)).argsort() == order).all()
    gain = 255 / (limits["shared_high"][0] - limits["shared_low"][0])
    low, high = (
        np.array([limits[side][g][0] for g in adata.obs["condition"]])[:, None, None, None] for side in ("low", "high")
    )
    inner = (raw >= low) & (raw <= high)
    assert inner.mean() > 0.9
    assert np.abs((raw - limits["shared_low"][0]) * gain - made)[inner].max() <= 0.5001
    figure = sst.pl.gallery(adata, return_fig=True)
    shown = [a.images[0].get_array() for a in figure.axes if a.images]
    cells = {np.moveaxis(image, 0, -1).tobytes() for image in made}
    assert all(np.asarray(image).tobytes() in cells for image in shown)
    assert (to_rgb(made[:2], brightfield=True) == np.moveaxis(made[:2], 1, -1)).all()


def test_visium_hd_the_whole_path(visium_hd, tmp_path):
    adata, moved = whole_path(paired(visium_hd, expression="cell", table_key="square_008um"), tmp_path)
    assert moved.attrs["brightfield"]
    assert {"crops_hematoxylin_nucleus_mean", "crops_eosin_ring_mean", "crops_r_window_mean"} <= set(adata.obs)
    assert adata.uns["crops_morphology"]["params"]["nucleus_channel"] == "hematoxylin"
    normal = adata[adata.obs["condition"] == "normal"]
    sst.pl.region(visium_hd["normal"], adata=normal, key="edited")
    sst.pl.region(normal)


def test_nuclei_of_an_h_and_e_are_those_of_its_dapi(tissue, visium_hd):
    """The same nuclei, outlined in hematoxylin and in the fluorescence that it was made of."""
    from vendors import stained

    sdata = visium_hd["tumor"]
    view = tissue.draw("tumor", 1, channels=("CD298/B2M", "DAPI"))
    centres = view.causes[["nucleus_x", "nucleus_y"]].to_numpy()
    low = np.floor(centres).astype(int) - 32
    side = view.labels.shape[0]
    low = low[((low >= 0) & (low + 64 <= side)).all(axis=1)]
    picture = np.moveaxis(stained(view), -1, 0)
    assert (picture == np.asarray(sdata["tumor_full_image"]["scale0"]["image"])).all()
    coloured = np.stack([picture[:, y : y + 64, x : x + 64] for x, y in low])
    grey = np.stack([view.images[1:, y : y + 64, x : x + 64] for x, y in low])
    hematoxylin = sst.metrics.stain_densities(coloured)[:, :1]
    in_stain = sst.metrics.nucleus_features(hematoxylin)
    in_dapi = sst.metrics.nucleus_features(grey)
    both = (in_stain["nucleus_ok"] & in_dapi["nucleus_ok"]).to_numpy()
    assert both.mean() > 0.5
    ratio = in_stain["nucleus_area"][both] / in_dapi["nucleus_area"][both]
    assert 0.93 < np.median(ratio) < 1.07
    assert np.corrcoef(in_stain["nucleus_area"][both], in_dapi["nucleus_area"][both])[0, 1] > 0.9
    dark = sst.metrics.nucleus_features(coloured)  # as if light were stain: what is outlined is no nucleus
    assert (dark["nucleus_ok"].to_numpy() & both).mean() < 0.5 * both.mean()
