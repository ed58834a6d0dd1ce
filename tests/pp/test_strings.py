"""pandas 3's type for text: slides are read, cut and written as ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from packaging.version import Version
from spatialdata import read_zarr

import sst
from sst.datasets import simulate_tissue

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    Version(pd.__version__) < Version("2.3"), reason="pandas 2.2's preview of the type is another one"
)


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


@pytest.mark.filterwarnings("ignore")
def test_a_study_with_text_of_pandas_3(tmp_path: Path) -> None:
    """Slides joined, edited, measured and put back: what that writes can be written and read again."""
    with pd.option_context("future.infer_string", True):
        tissue = simulate_tissue(n_cells=40, n_genes=16, fovs=2, seed=1)
        slides = dict(zip("nt", map(sst.pp.read_cosmx, tissue.write_cosmx(tmp_path / "c")), strict=True))
        cells = {name: sst.pp.crop_cells(slide, size=32, output_size=16) for name, slide in slides.items()}
        adata = ad.concat(cells, label="condition", index_unique="-", uns_merge="same")
        sst.pp.rescale_intensity(adata, groupby="condition")
        sst.pp.train_test_split(adata, by="fov", test_size=0.5)
        sst.tl.edit(adata, ["HLA-A", "B2M"], model=None, method="quantile", subset="fov == 'F001'")
        adata.obsm["edited"] = 255 - adata.obsm["crops"]
        for key in ("crops", "edited"):
            sst.tl.morphology(adata, key=key)
        sst.tl.distances(adata, keys=["edited"], features="pixel-pca", repeats=2)
        sst.tl.confound_report(adata, "condition", n_cells=40)
        sst.tl.write_region(slides["t"], adata, subset={"condition": ["t"]}, fov="F001")
        for windows in (False, True):
            sst.tl.write_cells(
                slides["t"], adata, subset={"condition": ["t"]}, windows=windows, key_added=f"c{windows}"
            )
        slides["t"].write(tmp_path / "slide.zarr")
        with ad.settings.override(allow_write_nullable_strings=True):  # what ad.concat made is anndata's own to write
            adata.write_h5ad(tmp_path / "a.h5ad")
            adata.write_zarr(tmp_path / "a.zarr")
        sst.io.write_store(adata, tmp_path / "s.zarr")
        again = [
            ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr"), sst.io.open_store(tmp_path / "s.zarr")
        ]  # fmt: skip
        for other in again:
            assert list(other.obs_names) == list(adata.obs_names)
            before = adata.layers["edited"].toarray()
            sst.tl.replay(other)
            np.testing.assert_allclose(other.layers["edited"].toarray(), before)
        part = read_zarr(tmp_path / "slide.zarr")["cTrue"]
        assert list(part.obs["window"]) == [name.removesuffix("-t") for name in part.obs_names]
