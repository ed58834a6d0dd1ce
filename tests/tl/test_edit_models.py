"""Edits drawn by real (small, untrained) models, found on the object and replayed from files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from factories import paired_cells, small_gan

import sst
from sst.models import GAN, remember

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 16


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    rates = np.array([[20, 10, 5, 9, 20, 5], [40, 10, 5, 9, 20, 8]])
    X = np.vstack([rng.poisson(np.repeat(rates[[g]], 30, axis=0)) for g in (0, 1)])
    obs = pd.DataFrame(
        {"state": pd.Categorical(np.repeat(["n", "t"], 30)), "split": np.resize(["train", "train", "test"], 60)},
        index=[f"c{i}" for i in range(60)],
    )
    adata = ad.AnnData(
        sp.csr_matrix(X.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(6)])
    )
    adata.obsm["crops"] = rng.integers(0, 255, (60, 2, SIZE, SIZE)).astype(np.uint8)
    adata.uns["crops"] = {
        "channels": ["CD298/B2M", "DAPI"], "size": 24, "output_size": SIZE, "pixel_size": 0.5,
    }  # fmt: skip
    return adata


@pytest.fixture
def gan(adata: ad.AnnData) -> GAN:
    return small_gan(adata, groupby="state")


def test_last_model_is_found_and_replayed(adata: ad.AnnData, gan: GAN, tmp_path: Path) -> None:
    gan.save(tmp_path / "gan")
    remember(adata, "gan", tmp_path / "gan")
    sst.tl.edit(adata, ["g0", "g5"])  # the groups' column is the model's
    before, after = adata.obsm["generated"], adata.obsm["edited"]
    assert after.shape == (60, 2, SIZE, SIZE)
    assert (before != after).any(axis=(1, 2, 3)).mean() > 0.9
    np.testing.assert_array_equal(before, gan.generate(adata, seed=0))
    np.testing.assert_array_equal(after, gan.generate(adata, layer="edited", seed=0))
    adata.write_zarr(tmp_path / "a.zarr")
    again = ad.read_zarr(tmp_path / "a.zarr")
    assert str(again.uns["edited"]["params"]["model_hash"]) == gan.hash
    sst.tl.replay(again, key_added="again")
    np.testing.assert_array_equal(again.obsm["again"], after)
    np.testing.assert_array_equal(again.layers["again"].toarray(), adata.layers["edited"].toarray())


def test_strength_zero_draws_the_same_image(adata: ad.AnnData, gan: GAN) -> None:
    sst.tl.edit(adata, model=gan, strength=0.0, seed=5)
    np.testing.assert_array_equal(adata.obsm["edited"], adata.obsm["generated"])


def test_images_made_before_are_kept(adata: ad.AnnData, gan: GAN) -> None:
    sst.tl.generate(adata, model=gan, seed=1)
    made = adata.obsm["generated"]
    sst.tl.edit(adata, ["g0"], model=gan, seed=1)
    assert adata.obsm["generated"] is made
    sst.tl.generate(adata, model=gan, seed=1, n_samples=2)
    sst.tl.edit(adata, ["g0"], model=gan, seed=1)
    np.testing.assert_array_equal(adata.obsm["generated"], made)


def test_other_genes_or_channels_are_refused_before_any_work(adata: ad.AnnData, gan: GAN) -> None:
    adata.uns["crops"]["channels"] = ["DAPI", "CD298/B2M"]
    with pytest.raises(ValueError, match="channels differ"):
        sst.tl.edit(adata, model=gan)
    with pytest.raises(ValueError, match="genes differ"):
        sst.tl.edit(adata[:, :5].copy(), model=gan)
    assert "edited" not in adata.layers


def test_controls_with_a_model(adata: ad.AnnData, gan: GAN, tmp_path: Path) -> None:
    sst.tl.edit_controls(
        adata,
        ["g0"],
        model=gan,
        features=["CD298-B2M_window_mean", "DAPI_window_mean"],
        n_cells=8,
        n_random=2,
        n_shuffles=1,
        n_resamples=50,
    )
    effects = adata.uns["edit_controls"]["effects"]
    none = effects[effects["condition"] == "strength 0"]
    assert (none["mean"] == 0).all()
    assert effects[effects["condition"] == "edit"]["mean"].abs().max() > 0
    assert set(effects["n"]) == {8}
    adata.write_zarr(tmp_path / "a.zarr")
    pd.testing.assert_frame_equal(
        ad.read_zarr(tmp_path / "a.zarr").uns["edit_controls"]["effects"],
        effects,
        check_dtype=False,
        check_column_type=False,
        check_index_type=False,
    )


def test_an_inversion(adata: ad.AnnData, gan: GAN, tmp_path: Path) -> None:
    from sst.train import CLIPConfig, EncoderConfig, FitConfig, InversionConfig, TowersConfig

    fit = FitConfig(iterations=2, batch_size=8, log_every=2, checkpoint_every=2, evaluate_every=2, sample_every=0)
    towers = CLIPConfig(towers=TowersConfig(dim=8, widths=(8, 8)), fit=fit)
    encoder = EncoderConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), head_width=8)
    clip = sst.tl.train_clip(adata, config=towers, out=tmp_path / "clip", device="cpu")
    config = InversionConfig(encoder=encoder, fit=fit)
    model = sst.tl.train_inversion(adata, gan=gan, clip=clip, config=config, out=tmp_path / "inversion", device="cpu")
    sst.tl.edit(adata, ["g0"], source="n", target="t")  # model="last" is the inversion
    own = (adata.obs["state"] == "n").to_numpy()
    np.testing.assert_array_equal(adata.obsm["generated"], model.generate(adata))
    np.testing.assert_array_equal(adata.obsm["edited"][own], model.generate(adata[own], layer="edited", fade=1.0))
    np.testing.assert_array_equal(adata.obsm["edited_fade_only"][own], model.generate(adata[own], fade=1.0))
    np.testing.assert_array_equal(adata.obsm["edited_genes_only"][own], model.generate(adata[own], layer="edited"))
    np.testing.assert_array_equal(adata.obsm["edited"][~own], adata.obsm["generated"][~own])
    sst.tl.rank_genes_effect(
        adata, "DAPI_window_mean", method="both", toward="edited", n_cells=4, n_steps=24, fade=1.0, subset=own
    )
    table = adata.uns["rank_genes_effect"]["table"].set_index("gene")
    assert (table["gradient"].drop("g0") == 0).all()  # the path moves no other gene
    with pytest.raises(TypeError, match="makes no images"):
        sst.tl.edit(adata, model=clip)


def test_a_knockout_below_what_was_trained_on_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Log counts below the 0.1 % quantile of training are drawn as at that end."""
    cells = paired_cells(60, rate=9.0)
    gan = small_gan(cells)
    gan.generator.set_range(torch.full((5,), 2.0), torch.full((5,), 30.0))
    with caplog.at_level(logging.WARNING, logger="sst"):
        sst.tl.edit(cells, ["g1"], method="scale", value=1.5, model=gan)
        assert "drawn with that many" not in caplog.text
        sst.tl.edit(cells, ["g1"], method="knockout", model=gan)
        assert "g1 (as 2)" in caplog.text
        caplog.clear()
        sst.tl.dose_response(cells, "g2", factors=[0, 1, 2], model=gan, n_cells=4, features="DAPI_window_mean")
        assert "g2 (as 2)" in caplog.text
        caplog.clear()
        options = {"perturbation": "knockout", "model": gan, "n_cells": 4, "genes": ["g3"]}
        sst.tl.rank_genes_effect(cells, "DAPI_window_mean", **options)
        assert "g3 (as 2)" in caplog.text
