"""Proteins beside the genes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from factories import paired_cells

import sst


def with_proteins():
    adata = paired_cells(genes=["CD8A", "EPCAM"], n=24)
    adata.layers["segmented"] = adata.X.copy()
    values = np.random.default_rng(1).gamma(2.0, 3.0, (24, 2))
    adata.obsm["protein"] = pd.DataFrame(values, index=adata.obs_names, columns=["CD8A", "Ki-67"])
    return adata


def test_proteins_are_variables_like_genes(tmp_path):
    import anndata as ad

    adata = with_proteins()
    both = sst.pp.add_variables(adata)
    assert list(both.var_names) == ["CD8A", "EPCAM", "CD8A-protein", "Ki-67"]
    assert list(both.var["kind"]) == ["gene", "gene", "protein", "protein"]
    np.testing.assert_array_equal(both.X[:, :2].toarray(), adata.X.toarray())
    for matrix in (both.X, both.layers["segmented"]):
        np.testing.assert_array_equal(matrix[:, 2:].toarray(), adata.obsm["protein"].to_numpy(np.float32))
    assert both.obsm["crops"] is adata.obsm["crops"] or (both.obsm["crops"] == adata.obsm["crops"]).all()
    assert "protein" not in both.obsm
    assert "protein" in adata.obsm
    both.write_h5ad(tmp_path / "both.h5ad")
    both = ad.read_h5ad(tmp_path / "both.h5ad")
    sst.tl.edit(both, genes=["Ki-67"], groupby="condition", model=None)
    moved = np.asarray(np.abs(both.layers["edited"] - both.X).sum(axis=0)).ravel()
    assert (moved > 0).tolist() == [False, False, False, True]


def test_what_is_no_measurement_is_refused():
    adata = with_proteins()
    adata.obsm["protein"].iloc[3, 1] = -1
    with pytest.raises(ValueError, match=r"'c3' has -1.0 of 'Ki-67'"):
        sst.pp.add_variables(adata)
    with pytest.raises(TypeError, match="a DataFrame is needed"):
        sst.pp.add_variables(adata, "crops")
    with pytest.raises(KeyError, match="proteins"):
        sst.pp.add_variables(adata, "proteins")
