"""An editor wherever an image model is taken."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sst

sys.path.insert(0, str(Path(__file__).parent))
from test_train_editor import TINY, paired


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.set_num_threads(1)
    adata = paired(side=32)
    sst.tl.train_editor(
        adata, config=TINY, iterations=12, out=tmp_path_factory.mktemp("model") / "ed", device="cpu", seed=0
    )
    return adata


@pytest.fixture
def adata(trained):
    return trained.copy()


def test_edit_writes_the_edited_cell_and_leaves_the_rest(adata):
    tumor = (adata.obs["condition"] == "tumor").to_numpy()
    sst.tl.edit(adata, ["g0"], source="tumor", target="normal", method="mean", key_added="calm")
    assert "generated" not in adata.obsm  # what it was before is the crop
    crops, edited = adata.obsm["crops"], adata.obsm["calm"]
    assert edited.dtype == np.uint8
    assert edited.shape == crops.shape
    assert np.array_equal(edited[~tumor], crops[~tumor])
    assert (edited[tumor] != crops[tumor]).any()
    again = adata.copy()
    del again.obsm["calm"]
    sst.tl.replay(again, "calm")
    assert np.array_equal(again.obsm["calm"], edited)


def test_transition_begins_with_the_crop_and_ends_with_the_edit(adata):
    sst.tl.edit(adata, ["g0", "g1"], method="mean")
    da = sst.tl.transition(adata, steps=3, n_cells=4)
    rows = adata.obs_names.get_indexer(da["cell"].to_numpy())
    assert np.array_equal(da.to_numpy()[0], adata.obsm["crops"][rows])
    assert np.array_equal(da.to_numpy()[-1], adata.obsm["edited"][rows])
    assert "sst-turn" in sst.report.transition_slider(da)
    with pytest.raises(ValueError, match="fade"):
        sst.tl.transition(adata, steps=3, fade="only")


def test_one_effect(adata):
    sst.tl.edit(adata, ["g0"], method="mean", model=None)
    sst.tl.edit_effects(adata)
    report = adata.uns["edited_effects"]["report"]
    assert list(report.index) == ["genes only"]
    change = np.abs(adata.obsm["edited"].astype(int) - adata.obsm["crops"].astype(int)).mean((0, 2, 3))
    np.testing.assert_allclose(report.to_numpy()[0], change)
    assert (change > 0).any()


def test_genes_are_ranked_both_ways_and_agree(adata):
    bright = {"bright": lambda images: images[:, 0].astype(float).mean((1, 2))}
    options = {"n_cells": 12, "method": "both", "seed": 0}
    sst.tl.rank_genes_effect(adata, bright, gradient_feature=lambda grey: grey[:, 0].mean((1, 2)), n_steps=8, **options)
    table = adata.uns["rank_genes_effect"]["table"]
    assert set(table["gene"]) == set(adata.var_names)
    assert np.isfinite(table["effect"]).all()
    done = adata.uns["rank_genes_effect"]["report"]["completeness"]
    assert abs(done["tumor"] - 1) < 0.3


def test_doses_controls_and_evaluation(adata, tmp_path):
    bright = {"bright": lambda images: images[:, 0].astype(float).mean((1, 2))}
    sst.tl.dose_response(adata, "g0", features=bright, n_cells=8)
    assert "dose_response" in adata.uns
    sst.tl.edit_controls(adata, ["g0"], features=bright, n_cells=8, n_random=2, method="mean")
    assert "edit_controls" in adata.uns
    sst.tl.evaluate(
        adata, genes=["g0"], method="mean", metrics=["frechet"], repeats=2, n_measured=8, features="pixel-pca",
        out=tmp_path / "evaluation",
    )  # fmt: skip
    table = adata.uns["evaluation"]["distances"]
    assert set(table["images"]) == {"this cell"}
    assert set(table["edit"]) == {"none", "all", "chosen", "random"}
    with pytest.raises(ValueError, match="among them already"):
        sst.tl.evaluate(adata, model=["editor", "editor"], genes=["g0"])


def test_fidelity_generate_and_regions_take_it(adata):
    sst.tl.edit(adata, ["g0"], method="mean")
    sst.tl.fidelity(adata, truth=adata.obsm["crops"], clip=None, features=["marker_window_mean"])
    assert "fidelity" in adata.uns
    sst.tl.generate(adata, layer="edited", key_added="again")
    assert np.array_equal(adata.obsm["again"], adata.obsm["edited"])
