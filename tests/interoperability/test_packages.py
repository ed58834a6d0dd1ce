"""What stands beside us in scverse takes our objects as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest
import scanpy as sc
import spatialdata as sd

import sst

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad

mpl.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore")
MARKERS = ["HLA-A", "B2M"]
STAINS = ["CD298/B2M", "DAPI"]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> tuple[sd.SpatialData, ad.AnnData]:
    """A slide and its cells, edited in expression and in pictures."""
    tissue = sst.datasets.simulate_tissue(n_cells=80, n_genes=24, fovs=2, seed=0)
    slide = sst.pp.read_cosmx(tissue.write_cosmx(tmp_path_factory.mktemp("slides"))[1])
    adata = sst.pp.crop_cells(slide, size=48, output_size=16, channels=STAINS)
    adata.obs["half"] = np.where(np.arange(adata.n_obs) % 2, "odd", "even")
    adata.obs["half"] = adata.obs["half"].astype("category")
    sst.pp.rescale_intensity(adata, groupby="half")
    sst.tl.edit(adata, MARKERS, "half", model=None, method="quantile")
    adata.obsm["edited"] = 255 - adata.obsm["crops"]
    return slide, adata


@pytest.fixture
def slide(read: tuple[sd.SpatialData, ad.AnnData]) -> sd.SpatialData:
    return read[0]


@pytest.fixture
def adata(read: tuple[sd.SpatialData, ad.AnnData]) -> Iterator[ad.AnnData]:
    yield read[1].copy()
    mpl.pyplot.close("all")


def painted(show: Any) -> np.ndarray:
    """The pixels of a figure."""
    canvas = show.figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_scanpy_on_edited_expression(adata: ad.AnnData) -> None:
    sc.pp.normalize_total(adata, layer="edited")
    sc.pp.log1p(adata, layer="edited")
    sc.tl.rank_genes_groups(adata, "half", layer="edited", use_raw=False)
    assert len(sc.get.rank_genes_groups_df(adata, "odd")) == adata.n_vars
    sc.pp.pca(adata, layer="edited", n_comps=5)
    sc.pp.neighbors(adata, n_neighbors=5)
    sc.tl.umap(adata, maxiter=5)
    for draw in (sc.pl.dotplot, sc.pl.stacked_violin, sc.pl.matrixplot):
        draw(adata, MARKERS, "half", layer="edited", show=False)
    sc.pl.embedding(adata, "spatial", color=MARKERS, layer="edited", show=False)
    sc.pl.rank_genes_groups(adata, show=False)
    means = sc.get.aggregate(adata, "half", "mean", layer="edited")
    np.testing.assert_allclose(
        means["odd"].layers["mean"][0], adata[adata.obs["half"] == "odd"].layers["edited"].mean(0).A1, rtol=1e-5
    )


def test_scanpy_clusters_what_was_edited(adata: ad.AnnData) -> None:
    pytest.importorskip("igraph")
    sc.pp.pca(adata, n_comps=5)
    sc.pp.neighbors(adata, n_neighbors=5)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
    source = adata.obs["leiden"].cat.categories[0]
    sst.tl.edit(
        adata, MARKERS, "half", subset={"leiden": [source]}, model=None, method="quantile", key_added="of_cluster"
    )
    left = (adata.obs["leiden"] != source).to_numpy()
    np.testing.assert_array_equal(adata.layers["of_cluster"][left].toarray(), adata.X[left].toarray())


def test_squidpy_on_paired_cells(adata: ad.AnnData) -> None:
    sq = pytest.importorskip("squidpy")
    sq.gr.spatial_neighbors_knn(adata, n_neighs=4, library_key="fov")
    assert adata.obsp["spatial_connectivities"].shape == (adata.n_obs, adata.n_obs)
    fovs = adata.obs["fov"].astype(str).to_numpy()
    one, other = adata.obsp["spatial_connectivities"].nonzero()
    assert (fovs[one] == fovs[other]).all()
    sq.gr.nhood_enrichment(adata, cluster_key="half", n_perms=20, n_jobs=1, show_progress_bar=False)
    sq.pl.nhood_enrichment(adata, cluster_key="half")
    sq.gr.spatial_autocorr(adata, genes=MARKERS, layer="edited", n_jobs=1, n_perms=5, show_progress_bar=False)
    assert set(adata.uns["moranI"].index) == set(MARKERS)
    sq.pl.spatial_scatter(adata, color="half", shape=None)


def test_spatialdata_plot_draws_our_elements(slide: sd.SpatialData, adata: ad.AnnData) -> None:
    pytest.importorskip("spatialdata_plot")
    fov = str(adata.obs["fov"].iloc[0])
    here = {"fov": [fov]}
    sst.tl.write_region(slide, adata, subset=here, fov=fov, group="even", key_added="edited_region")
    sst.tl.write_cells(slide, adata)
    sst.tl.write_cells(slide, adata, windows=True, key_added="windows")
    colours = {"channel": STAINS, "palette": ["lime", "blue"]}
    before = painted(slide.pl.render_images(f"{fov}_image", **colours).pl.show(coordinate_systems=fov, return_ax=True))
    after = painted(slide.pl.render_images("edited_region", **colours).pl.show(coordinate_systems=fov, return_ax=True))
    assert (before != after).any()
    drawn = {}
    for layer in (None, "edited"):
        labels = slide.pl.render_labels(f"{fov}_labels", color="B2M", table_name="cells", table_layer=layer)
        squares = slide.pl.render_shapes("cell_crops", color="B2M", table_name="windows", table_layer=layer)
        drawn[layer] = [painted(p.pl.show(coordinate_systems="global", return_ax=True)) for p in (labels, squares)]
    for plain, edited in zip(*drawn.values(), strict=True):
        assert plain.std() > 0
        assert (plain != edited).any()


def test_napari_spatialdata_finds_the_cells_of_a_layer(slide: sd.SpatialData, adata: ad.AnnData) -> None:
    """What napari-spatialdata does to show a table's columns on a layer: join by region and instance, then index by instance."""
    for windows in (False, True):
        sst.tl.write_cells(slide, adata, windows=windows)
        table = slide["cells"]
        regions, region_key, instance_key = sd.models.get_table_keys(table)
        for element in regions:
            _, joined = sd.join_spatialelement_table(
                sdata=slide, spatial_element_names=element, table_name="cells", how="left", match_rows="left"
            )
            assert len(joined) == (table.obs[region_key] == element).sum() > 0
            assert joined.obs[instance_key].isin(sd.get_element_instances(slide[element])).all()


def test_a_loader_has_pictures_beside_expression(adata: ad.AnnData) -> None:
    from anndata.experimental import AnnLoader

    batch = next(iter(AnnLoader(adata, batch_size=6, shuffle=False)))
    assert batch.obsm["crops"].shape == (6, 2, 16, 16)
    np.testing.assert_array_equal(np.asarray(batch.obsm["crops"]), adata.obsm["crops"][:6])
    np.testing.assert_array_equal(np.asarray(batch.layers["edited"].to_dense()), adata.layers["edited"][:6].toarray())
