from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.models import TableModel

import sst


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[sd.SpatialData], ad.AnnData]:
    """Two slides and the cells of both, joined, with an edit."""
    tissue = sst.datasets.simulate_tissue(n_cells=60, n_genes=20, fovs=2, seed=1)
    there = [sst.pp.read_cosmx(path) for path in tissue.write_cosmx(tmp_path_factory.mktemp("slides"))]
    cells = {name: sst.pp.crop_cells(slide, size=48, output_size=16) for name, slide in zip("ab", there, strict=True)}
    adata = ad.concat(cells, label="condition", index_unique="-", uns_merge="same")
    adata.layers["edited"] = adata.X.astype(np.float32) * 2
    return there, adata


@pytest.mark.parametrize("windows", [False, True])
def test_every_cell_annotates_its_own_shape(slides: tuple, windows: bool, tmp_path: pytest.TempPathFactory) -> None:
    (_, slide), adata = slides
    sst.tl.write_cells(slide, adata, subset={"condition": ["b"]}, windows=windows)
    cells = slide["cells"]
    assert set(cells.obs_names) == set(adata.obs_names[adata.obs["condition"] == "b"])
    TableModel().validate(cells)
    slide.write(tmp_path / "slide.zarr")
    again = sd.read_zarr(tmp_path / "slide.zarr")
    where = again["cells"].obs["fov"].astype(str).iloc[0]
    element = "cell_crops" if windows else f"{where}_labels"
    matched = sd.match_table_to_element(again, element, "cells")
    assert len(matched) == (len(cells) if windows else (cells.obs["fov"] == where).sum())
    if windows:
        middle = pd.DataFrame({c: getattr(again[element].loc[matched.obs["window"]].centroid, c) for c in "xy"})
        np.testing.assert_allclose(middle, matched.obsm["spatial"], atol=0.5)
    else:
        x, y = (matched.obs[c].astype(int) for c in ("x_px", "y_px"))
        inside = again[element].to_numpy()[y, x]
        assert (inside == matched.obs["label"]).mean() > 0.9  # nuclei lie off their cells' middle now and then
    np.testing.assert_array_equal(matched.layers["edited"].toarray(), matched.X.toarray() * 2)


def test_what_cannot_be_placed_is_said(slides: tuple) -> None:
    (_, slide), adata = slides
    with pytest.raises(ValueError, match="several slides"):
        sst.tl.write_cells(slide, adata)
    of_one = adata[adata.obs["condition"] == "b"].copy()
    bare = sd.SpatialData(tables={"table": ad.AnnData(np.ones((3, 2), np.float32))})
    with pytest.raises(KeyError, match="annotates nothing"):
        sst.tl.write_cells(bare, of_one)
    with pytest.raises(KeyError, match="crop_cells"):
        sst.tl.write_cells(bare, of_one, windows=True)
    part = sd.SpatialData(labels={"F001_labels": slide["F001_labels"]}, tables={"table": slide["table"]})
    sst.tl.write_cells(part, of_one)
    assert set(part["cells"].obs["fov"]) == {"F001"}
    del of_one.obs["label"]
    with pytest.raises(KeyError, match="label"):
        sst.tl.write_cells(part, of_one)
