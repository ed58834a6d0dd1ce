from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import sst

mpl.use("Agg")


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    X = rng.poisson(np.repeat([[2, 9, 4], [2, 3, 8]], 60, axis=0))
    obs = pd.DataFrame({"condition": np.repeat(["n", "t"], 60)}, index=[str(i) for i in range(120)])
    return ad.AnnData(sp.csr_matrix(X.astype(np.float32)), obs=obs, var=pd.DataFrame(index=["same", "down", "up"]))


def test_both_directions(adata: ad.AnnData) -> None:
    sst.tl.edit(adata, method="quantile", model=None)
    axes = sst.pl.expression_shift(adata, n_genes=2)
    assert sorted(a.get_title() for a in axes) == ["down", "up"]
    assert [t.get_text() for t in axes[0].get_xticklabels()] == ["n", "n\n→ t", "t", "t\n→ n"]
    texts = [t.get_text() for t in axes[0].texts]
    assert texts.count("****") >= 2  # moved away from what they were
    assert texts.count("ns") == 2  # and onto the target


def test_one_direction_and_prescribed(adata: ad.AnnData) -> None:
    sst.tl.edit(adata, ["up"], source="n", target="t", method="quantile", model=None)
    ax = sst.pl.expression_shift(adata[::2], "up")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["n", "n\n→ t", "t"]
    sst.tl.edit(adata, ["up"], method="knockout", key_added="ko", model=None)
    figure = sst.pl.expression_shift(adata, ["up"], key="ko", return_fig=True)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["all", "all\nedited"]
    with pytest.raises(KeyError, match="'nope'"):
        sst.pl.expression_shift(adata, ["nope"])
    with pytest.raises(KeyError, match="key='never'"):
        sst.pl.expression_shift(adata, key="never")
