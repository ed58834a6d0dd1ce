"""Edits of what counts read: the slots, the refusal, and an effect at its true size where plain edits lose half."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import sst
from sst.models import FeatureRegression

N, P, SIDE = 4000, 24, 16


@pytest.fixture(scope="module")
def cells():
    """Gene g0 sets the brightness of a window; g4 is of its programme and causes nothing; g23 is hardly ever counted."""
    rng = np.random.default_rng(0)
    tumor = np.arange(N) % 2 == 1
    log_rate = np.log(1.5) + 0.5 * rng.normal(size=(N, 4))[:, np.arange(P) % 4] + 0.35 * rng.normal(size=(N, P))
    log_rate[tumor, 0] += 0.6
    log_rate[tumor, 4] += 0.6
    log_rate[:, 23] -= 6
    counts = rng.poisson(np.exp(log_rate)).astype(np.float32)
    adata = ad.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(index=[f"c{i}" for i in range(N)]))
    adata.var_names = [f"g{i}" for i in range(P)]
    adata.obs["condition"] = pd.Categorical(np.where(tumor, "tumor", "normal"))
    adata.obs["split"] = np.where(np.arange(N) < 3600, "train", "test")
    marker = 60 * np.exp(0.5 * log_rate[:, 0] + rng.normal(0, 0.1, N))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    disc = 20 + 150 / (1 + np.exp(2 * (np.hypot(y, x) - 4.5)))
    adata.obsm["crops"] = np.clip(
        np.stack([np.broadcast_to(marker[:, None, None], (N, SIDE, SIDE)), np.broadcast_to(disc, (N, SIDE, SIDE))], 1),
        0,
        255,
    ).astype(np.uint8)
    adata.uns["crops"] = {"channels": ["marker", "DAPI"], "pixel_size": 0.0, "size": SIDE}
    return adata


def brightness(adata, key):
    normal = (adata.obs["condition"] == "normal").to_numpy() & (adata.obs["split"] == "test").to_numpy()
    crops, edited = (np.log(adata.obsm[k][normal, 0].mean((1, 2))) for k in ("crops", key))
    return float((edited - crops).mean())


def test_effects_at_their_size(cells):
    adata = cells.copy()
    rival = sst.tl.fit_rival(adata, "morph")
    for gene in ("g0", "g4"):
        for latent in (False, True):
            sst.tl.edit(
                adata,
                genes=[gene],
                groupby="condition",
                method="ot",
                model=rival,
                latent=latent,
                key_added=f"{gene}{latent}",
            )
    true = 0.5 * 0.6
    assert 0.7 * true < brightness(adata, "g0True") < 1.25 * true
    assert brightness(adata, "g0False") < 0.6 * brightness(adata, "g0True")
    assert brightness(adata, "g4False") > 0.04 * true
    assert abs(brightness(adata, "g4True")) < 0.9 * brightness(adata, "g4False")
    # what is asked for is the same; what is shown is another layer
    assert (adata.layers["g0True"] != adata.layers["g0False"]).nnz == 0
    assert "g0False_shown" not in adata.layers
    shown = adata.layers["g0True_shown"]
    assert shown.dtype == np.float32
    assert shown.min() > -1
    assert shown.min() < 0
    report = adata.uns["g0True"]["report"]["latent"]
    assert report["directions"]["moved"].ge(0.9).all()
    assert report["reliability"]["gene"].tolist() == ["g0"]
    assert adata.var["g0True_reliability"].between(0, 1).all()
    assert adata.uns["g0True"]["params"]["latent"]


def test_refuses_noise(cells):
    adata = cells.copy()
    with pytest.raises(ValueError, match=r"g23 0\.0.*mostly noise.*force=True"):
        sst.tl.edit(adata, genes=["g0", "g23"], groupby="condition", method="ot", model=None, latent=True)
    sst.tl.edit(adata, genes=["g0", "g23"], groupby="condition", method="ot", model=None, latent=True, force=True)
    sst.tl.edit(adata, groupby="condition", method="ot", model=None, latent=True)  # all genes: nothing was chosen


def test_replay_and_files(cells, tmp_path):
    adata = cells[:3000].copy()
    sst.tl.edit(adata, genes=["g0"], groupby="condition", method="ot", model=None, latent=True)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    shown = again.layers["edited_shown"].copy()
    sst.tl.replay(again)
    np.testing.assert_array_equal(again.layers["edited_shown"], shown)


def test_only_edits_may_show_what_is_no_count(cells):
    adata = cells.copy()
    rival = sst.tl.fit_rival(adata, "ridge", features=["marker_window_mean"])
    assert isinstance(rival, FeatureRegression)
    adata.layers["odd"] = adata.X.toarray() - 0.5
    with pytest.raises(ValueError, match="negative"):
        rival.predict(adata, layer="odd")
    with rival.read_beyond():
        assert np.isfinite(rival.predict(adata, layer="odd").to_numpy()).all()
    with pytest.raises(ValueError, match="negative"):
        rival.predict(adata, layer="odd")
