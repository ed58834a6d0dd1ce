"""pandas 3's type for text: slides are read, cut and written as ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sst
from sst.datasets import simulate_tissue

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("vendor", ["cosmx", "xenium"])
def test_text_of_pandas_3(tmp_path: Path, vendor: str) -> None:
    with pd.option_context("future.infer_string", True):
        tissue = simulate_tissue(n_cells=30, n_genes=16, fovs=1, seed=1)
        if vendor == "cosmx":
            sdata = sst.pp.read_cosmx(tissue.write_cosmx(tmp_path / "c", layout="atomx")[0])
        else:
            sdata = sst.pp.read_xenium(tissue.write_xenium(tmp_path / "x", version="3.0.0")[0])
        stored = sst.pp.crop_cells(sdata, size=24, output_size=24, store=tmp_path / "s.zarr")
        adata = sst.pp.crop_cells(sdata, size=24, output_size=24, sample="s")
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata.write_zarr(tmp_path / "a.zarr")
        sdata.write(tmp_path / "sd.zarr")
        back = ad.read_h5ad(tmp_path / "a.h5ad")
        sst.io.write_store(back, tmp_path / "b.zarr")
        for other in (stored, back, sst.io.open_store(tmp_path / "b.zarr")):
            assert list(other.obs_names) == list(adata.obs_names)
            assert (other.X != adata.X).nnz == 0
            np.testing.assert_array_equal(np.asarray(other.obsm["crops"]), adata.obsm["crops"])
