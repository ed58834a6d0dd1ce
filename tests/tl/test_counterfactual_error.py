"""Edits beside the truth: known errors are found, each edit beside its own image before, no edit and rivals beside."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import sst

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from test_rivals import CHANNELS, N, cells, draw  # noqa: F401


@pytest.fixture
def edited(cells):  # noqa: F811
    adata = cells.copy()
    adata.obs["fov"] = (np.arange(N) // 10).astype(str)
    rival = sst.tl.fit_rival(adata, "morph")
    sst.tl.edit(adata, genes=["H2AZ1"], groupby="condition", method="quantile", model=rival, key_added="morphed")
    counts, new = (np.asarray(m.todense()) for m in (adata.X, adata.layers["morphed"]))
    adata.obsm["truth"] = draw(40 * np.sqrt(counts[:, 0] / 8), 60 * np.sqrt(new[:, 1] / 15), 1.5)
    return adata


def table(adata, what="features"):
    return adata.uns["counterfactual_error"][what].set_index(["method", "source"])


def test_the_truth_is_recovered_whole(edited):
    edited.obsm["perfect"] = edited.obsm["truth"]
    sst.tl.counterfactual_error(edited, "truth", {"perfect": "perfect", "morph": "morphed"}, subset=np.ones(N, bool))
    area = table(edited).query("feature == 'nucleus_area'")
    assert (area.loc["perfect", "share"] == 1).all()
    assert (area.loc["perfect", "r"] > 0.999).all()
    assert (area.loc["no edit", "share"] == 0).all()
    assert area.loc["morph", "share"].between(0.7, 1.3).all()
    assert (area.loc["morph", "r"] > 0.7).all()
    assert (area.loc["morph", "share_low"] < area.loc["morph", "share"]).all()
    assert (area["n_clusters"] == 24).all()
    assert table(edited).query("feature == 'CD298-B2M_window_mean'")["share"].isna().all()  # no true effect: no share
    images = table(edited, "images")
    assert (images.loc["perfect", "psnr"] == 100).all()
    assert (images.loc["morph", "psnr"] > images.loc["no edit", "psnr"] + 3).all()


def test_plain_formula(edited):
    sst.tl.counterfactual_error(edited, edited.obsm["truth"], "morphed", features=["nucleus_area"])
    own = (edited.obs["split"] == "test").to_numpy() & (edited.obs["condition"] == "normal").to_numpy()
    area = {
        key: sst.metrics.nucleus_features(edited.obsm[key][own], nucleus_channel=1, channels=CHANNELS)["nucleus_area"]
        for key in ("crops", "morphed", "truth")
    }
    change, true = area["morphed"] - area["crops"], area["truth"] - area["crops"]
    row = table(edited).loc[("morphed", "normal")]
    np.testing.assert_allclose(row["share"], change.mean() / true.mean())
    np.testing.assert_allclose(row["r"], np.corrcoef(change, true)[0, 1])
    fidelity = edited.copy()
    sst.tl.fidelity(fidelity, "morphed", truth="truth", groupby="condition", clip=None, features=["nucleus_area"])
    wide = fidelity.uns["fidelity"]["truth"].set_index("source").loc["normal"]
    np.testing.assert_allclose(
        wide[["nucleus_area_recovered", "nucleus_area_r"]].to_numpy(float), row[["share", "r"]].to_numpy(float)
    )


def test_images_before_of_another_model_are_refused(edited):
    for n_cells in (20, 30):
        rival = sst.tl.fit_rival(edited, "nearest", n_cells=n_cells)
        sst.tl.edit(edited, genes=["H2AZ1"], groupby="condition", method="ot", model=rival, key_added=f"near{n_cells}")
    sst.tl.counterfactual_error(edited, "truth", ["near30", "morphed"])
    with pytest.raises(ValueError, match="'near20' is by"):
        sst.tl.counterfactual_error(edited, "truth", "near20")
    with pytest.raises(ValueError, match="expected images of shape"):
        sst.tl.counterfactual_error(edited, edited.obsm["truth"][:5], "morphed")
    with pytest.raises(ValueError, match="at least one edit"):
        sst.tl.counterfactual_error(edited, "truth", [])
