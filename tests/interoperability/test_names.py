"""Names of groups, genes, channels and models with slashes, spaces and letters of other alphabets survive every way of writing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from factories import SMALL_NETWORKS, paired_cells
from spatialdata import SpatialData, read_zarr

import sst
from sst.train import GANConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

mpl.use("Agg")
GENES = ["HLA-A", "β2M/x", "gene 3", "MT-CO1", "日本"]
GROUPS = ["healthy / 1", "Tümor (II)"]
CHANNELS = ["CD298/B2M stain", "DAPI α"]
TINY = GANConfig.preset("demo").replace(
    **SMALL_NETWORKS,
    fit__batch_size=8,
    fit__iterations=2,
    fit__evaluate_every=0,
    fit__checkpoint_every=0,
    fit__sample_every=0,
)


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> ad.AnnData:
    """Everything that we put into an object."""
    adata = paired_cells(80, GENES, 16, channels=CHANNELS, pixel_size=0.5)
    adata.obs["état"] = pd.Categorical(np.array(GROUPS)[np.arange(80) % 2])
    adata.obs["fov"] = [f"F{k:03d}" for k in np.arange(80) // 10]
    how = {"groupby": "état"}
    sst.tl.train_gan(adata, config=TINY, out=tmp_path_factory.mktemp("a folder") / "mödel 1", device="cpu", **how)
    sst.tl.edit(adata, genes=GENES[:2], method="quantile", **how)
    for key in ("crops", "generated", "edited"):
        sst.tl.morphology(adata, key=key)
    sst.tl.edit_controls(adata, GENES[:2], n_cells=20, n_random=2)
    sst.tl.distances(adata, **how, repeats=2, features="pixel-pca")
    sst.tl.confound_report(adata, how["groupby"])
    sst.tl.rank_genes_effect(adata, "nucleus_area", n_cells=20)
    return adata


def by_h5ad(adata: ad.AnnData, path: Path) -> ad.AnnData:
    adata.write_h5ad(path / "cells.h5ad")
    return ad.read_h5ad(path / "cells.h5ad")


def by_zarr(adata: ad.AnnData, path: Path) -> ad.AnnData:
    adata.write_zarr(path / "cells.zarr")
    return ad.read_zarr(path / "cells.zarr")


def by_store(adata: ad.AnnData, path: Path) -> ad.AnnData:
    sst.io.write_store(adata, path / "store.zarr")
    return sst.io.open_store(path / "store.zarr")


def by_sdata(adata: ad.AnnData, path: Path) -> ad.AnnData:
    SpatialData(tables={"table": adata}).write(path / "slide.zarr")
    return read_zarr(path / "slide.zarr")["table"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", [by_h5ad, by_zarr, by_store, by_sdata])
def test_everything_survives(edited: ad.AnnData, tmp_path: Path, way: Callable[[ad.AnnData, Path], ad.AnnData]) -> None:
    again = way(edited.copy(), tmp_path)
    assert list(again.var_names) == GENES
    assert set(again.obs["état"]) == set(GROUPS)
    assert list(again.uns["crops"]["channels"]) == CHANNELS
    for slot in ("crops", "generated", "edited"):
        np.testing.assert_array_equal(np.asarray(again.obsm[slot]), edited.obsm[slot])
    assert set(again.uns["edited"]["report"]["directions"]["source"]) == set(GROUPS)
    sst.tl.replay(again)
    np.testing.assert_allclose(again.layers["edited"].toarray(), edited.layers["edited"].toarray())
    for draw in (sst.pl.expression_shift, sst.pl.morphology, sst.pl.edit_controls, sst.pl.distances, sst.pl.gallery):
        draw(again)
    sst.pl.confound_report(again)
    sst.pl.rank_genes_effect(again)
    mpl.pyplot.close("all")
