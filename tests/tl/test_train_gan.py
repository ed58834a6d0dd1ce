"""Train, save, resume, generate; small."""

from __future__ import annotations

import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
import torch
from factories import SMALL_NETWORKS, paired_cells

from sst.tl import generate, train_gan
from sst.tl._training._held_out import HeldOut, sample_grid
from sst.train import Checkpoints, GANConfig

TINY = GANConfig.preset("demo").replace(
    **SMALL_NETWORKS,
    fit__batch_size=8, fit__log_every=5, fit__iterations=20, fit__evaluate_every=10, fit__checkpoint_every=10,
    fit__sample_every=10,
)  # fmt: skip


def paired(n=80, genes=5, side=8):
    """Cells whose brightness is set by gene 0."""
    adata = paired_cells(n, genes, side)
    first = adata.X[:, [0]].toarray().ravel()
    adata.obs["condition"] = pd.Categorical(np.where(first > 5, "tumor", "normal"))
    light = np.clip(20 * first, 0, 220)[:, None, None, None]
    noise = np.random.default_rng(1).normal(0, 8, adata.obsm["crops"].shape)
    adata.obsm["crops"] = np.clip(light + noise, 0, 255).astype(np.uint8)
    return adata


def test_train_save_generate_and_read_back(tmp_path):
    adata = paired()
    gan = train_gan(adata, config=TINY, out=tmp_path / "gan", device="cpu", seed=0)
    assert sorted(p.name for p in (tmp_path / "gan").iterdir()) == [
        "config.json", "history.csv", "registry.json", "training", "weights.safetensors",
    ]  # fmt: skip
    assert {"D/loss", "G/loss", "distance", "distance_images", "diversity", "images_per_second"} <= set(
        gan.history.columns
    )
    assert gan.history["distance"].notna().sum() == 2
    assert len(list((tmp_path / "gan" / "training" / "samples").glob("*.png"))) == 2
    assert adata.uns["sst"]["last"] == "gan"
    generate(adata, batch_size=7)
    assert adata.obsm["generated"].shape == (80, 2, 8, 8)
    assert adata.obsm["generated"].dtype == np.uint8
    assert adata.uns["generated"]["params"]["model_hash"] == gan.hash
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    generate(again, key_added="again")
    np.testing.assert_allclose(again.obsm["again"].astype(int), adata.obsm["generated"], atol=1)
    more = generate(again, n_samples=2, key_added="many", copy=True)
    assert more.obsm["many"].shape == (80, 2, 2, 8, 8)
    assert "many" not in again.obsm


def test_the_table_of_a_spatialdata(tmp_path):
    adata = paired()
    sdata = spatialdata.SpatialData(tables={"cells": adata})
    gan = train_gan(sdata, config=TINY, out=tmp_path, device="cpu", seed=0, iterations=2, table_key="cells")
    assert adata.uns["sst"]["last"] == "gan"
    generate(sdata, table_key="cells")
    np.testing.assert_array_equal(adata.obsm["generated"], gan.generate(adata))
    assert "again" in generate(sdata, key_added="again", copy=True, table_key="cells").obsm
    with pytest.raises(KeyError, match="cells"):
        generate(sdata)


def test_counts_outside_the_training_range_are_drawn_at_its_end(tmp_path):
    adata = paired()
    gan = train_gan(adata, config=TINY, out=tmp_path, device="cpu", iterations=2)
    seen = adata.X[(adata.obs["split"] == "train").to_numpy()].toarray()
    assert seen.shape == (60, 5)
    top, beyond = seen.max(0)[None], seen.max(0)[None] * 10
    np.testing.assert_array_equal(gan.generate(top), gan.generate(beyond))
    bottom = seen.min(0)[None]
    assert bottom.max() > 0
    np.testing.assert_array_equal(gan.generate(bottom), gan.generate(np.zeros_like(bottom)))
    transform = gan.generator.transform
    inside = torch.from_numpy(seen[:5])
    expected = (inside.log1p() - transform.mean) / transform.std
    torch.testing.assert_close(transform(inside), expected)


def test_resume_is_bit_equal_and_refuses_another_run(tmp_path):
    config = TINY.replace(loss__taper=0.0)  # else the first part would end tapered off
    whole = train_gan(paired(), config=config, out=tmp_path / "a", device="cpu", seed=3)
    train_gan(paired(), config=config, out=tmp_path / "b", device="cpu", seed=3, iterations=7)
    parts = train_gan(paired(), config=config, out=tmp_path / "b", device="cpu", seed=3)
    assert parts.hash == whole.hash
    done = train_gan(paired(), config=config, out=tmp_path / "b", device="cpu", seed=3)  # nothing left to do
    assert done.hash == whole.hash
    assert done.history["G/loss"].notna().any()
    with pytest.raises(ValueError, match="another config"):
        train_gan(paired(), config=config.replace(loss__r1_weight=3.0), out=tmp_path / "b", seed=3)
    with pytest.raises(ValueError, match="another registry"):
        train_gan(paired(genes=6), config=config, out=tmp_path / "b", seed=3)
    with pytest.raises(FileExistsError, match="resume=True"):
        train_gan(paired(), config=config, out=tmp_path / "b", device="cpu", seed=3, resume=False)


def test_best_checkpoint_can_be_used(tmp_path):
    out = tmp_path / "a"
    config = TINY.replace(optimizer__lr_generator=0.05, optimizer__lr_discriminator=0.05, fit__evaluate_every=5)
    last = train_gan(paired(), config=config, out=out, device="cpu", seed=0, iterations=40)
    best = train_gan(paired(), config=config, out=out, device="cpu", seed=0, iterations=40, use="best")
    state = Checkpoints(out / "training").state
    assert best.history["distance"].idxmin() == int(state["best"][2:])
    assert (best.hash == last.hash) == (state["best"] == state["last"])


def test_without_a_split_it_says_so(tmp_path, caplog):
    adata = paired()
    del adata.obs["split"]
    with caplog.at_level(logging.WARNING, logger="sst"):
        train_gan(adata, config=TINY, out=tmp_path, device="cpu", iterations=2)
    assert "no held-out cells" in caplog.text


def test_time_budget_and_paper_preset(tmp_path):
    config = GANConfig.preset("paper")
    config = config.replace(generator=TINY.generator, discriminator=TINY.discriminator, fit=TINY.fit).replace(
        generator__gene_inputs=("kernel",), generator__kernel_offset=0.0, generator__input_transform="counts",
        discriminator__conditioning="label", fit__iterations=10**6,
    )  # fmt: skip
    gan = train_gan(paired(), config=config, out=tmp_path, device="cpu", max_seconds=1.0)
    assert gan.history.index.max() < 10**6
    assert "PL/loss" in gan.history
    assert "G/alignment" not in gan.history


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "match"),
    [
        ({}, {"groupby": "slide"}, KeyError, "groupby='slide'"),
        ({}, {"layer": "raw"}, KeyError, "layer='raw'"),
        ({}, {"preset": "quick", "config": None}, ValueError, "preset='quick'"),
        ({"split": "held"}, {}, ValueError, "names no cell 'train'"),
        ({"side": 12}, {}, ValueError, "resolution=12"),
    ],
)
def test_wrong_input_is_named(tmp_path, change, kwargs, error, match):
    adata = paired(side=change.get("side", 8))
    if "split" in change:
        adata.obs["split"] = change["split"]
    with pytest.raises(error, match=match):
        train_gan(adata, **({"config": TINY, "out": tmp_path, "device": "cpu"} | kwargs))


def test_uint16_crops_are_refused(tmp_path):
    adata = paired()
    adata.obsm["crops"] = adata.obsm["crops"].astype(np.uint16)
    with pytest.raises(TypeError, match="rescale"):
        train_gan(adata, config=TINY, out=tmp_path, device="cpu")


class Echo(torch.nn.Module):
    """A generator that returns given images."""

    def __init__(self, images):
        super().__init__()
        self.images = torch.nn.Parameter(torch.from_numpy(images).float() / 127.5 - 1)
        self.z_dim, self.at = 4, 0

    def forward(self, z, x, noise):
        self.at += len(x)
        return self.images[self.at - len(x) : self.at]


def test_joint_distance_sees_images_of_the_wrong_cells():
    adata = paired(200)
    images, counts = adata.obsm["crops"], adata.X.toarray()
    held_out = HeldOut(images, counts, list(adata.obs_names))
    own = held_out(Echo(images))
    wrong = held_out(Echo(np.roll(images, 1, axis=0)))
    assert own["distance"] < 1e-6 * held_out.real.var(axis=0).sum()
    assert wrong["distance_images"] == pytest.approx(own["distance_images"], abs=1e-6)  # the same images
    assert wrong["distance"] > 0.1 * held_out.real.var(axis=0).sum()  # of other cells
    flat = held_out(Echo(np.full_like(images, 100)))
    assert flat["diversity"] < 0.01
    assert own["diversity"] == pytest.approx(1)


def test_sample_grid_puts_real_above_generated():
    real, made = np.full((3, 2, 4, 4), 10, np.uint8), np.full((3, 2, 4, 4), 200, np.uint8)
    grid = sample_grid(real, made, scale=2)
    assert grid.shape == (2 * 2 * 8, 24)
    assert grid[:8].max() == 10
    assert grid[8:16].min() == 200
