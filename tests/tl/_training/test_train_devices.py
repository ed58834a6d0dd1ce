"""CLIP and inversion in several processes started by the call itself, as from a notebook."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import SMALL_NETWORKS, paired_cells
from scipy import sparse

import sst
from sst.models import CLIP, Inversion
from sst.tl._training._processes import write_crops
from sst.train import CLIPConfig, GANConfig, InversionConfig
from sst.train._launch import TrainingProcessError

FIT = {
    "fit__iterations": 6, "fit__batch_size": 8, "fit__log_every": 3, "fit__evaluate_every": 3, "fit__checkpoint_every": 3,
    "fit__sample_every": 0,
}  # fmt: skip
GAN = GANConfig.preset("demo").replace(**(SMALL_NETWORKS | FIT | {"fit__evaluate_every": 0}))
TOWERS = CLIPConfig.preset("demo").replace(towers__dropout=0.0, towers__dim=8, towers__widths=(8, 12), **FIT)
ENCODER = InversionConfig.preset("demo").replace(
    encoder__widths=(8, 8, 8, 8), encoder__head_width=8, encoder__map_dropout=0.0, **FIT
)


def paired():
    adata = paired_cells(side=16)
    adata.layers["counts"], adata.X = adata.X, sparse.csr_matrix(adata.shape, dtype=np.float32)
    return adata


def assert_alike(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=2e-3, atol=2e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    adata, other = paired(), paired()
    how = {"layer": "counts", "seed": 1, "device": "cpu"}
    one = sst.tl.train_clip(adata, config=TOWERS, out=tmp_path / "clip1", **how)
    two = sst.tl.train_clip(other, config=TOWERS, out=tmp_path / "clip2", devices=2, **how)
    assert isinstance(two, CLIP)
    assert two.config.fit.devices == 2
    assert_alike(one.towers.state_dict(), two.towers.state_dict())
    np.testing.assert_allclose(other.obsm["X_clip_image"], adata.obsm["X_clip_image"], atol=2e-3)
    assert other.uns["clip"]["report"]["iterations"] == 6
    gan = sst.tl.train_gan(adata, config=GAN, out=tmp_path / "gan", **how)
    how |= {"gan": gan, "clip": one, "config": ENCODER}  # models that the other object knows nothing of
    one = sst.tl.train_inversion(adata, out=tmp_path / "inversion1", **how)
    two = sst.tl.train_inversion(other, out=tmp_path / "inversion2", devices=2, **how)
    assert isinstance(two, Inversion)
    assert other.uns["sst"]["last"] == "inversion"
    assert_alike(one.encoder.state_dict(), two.encoder.state_dict())
    assert two.metrics["psnr"] == pytest.approx(one.metrics["psnr"], rel=1e-3)
    assert other.uns["inversion"]["report"]["gan"] == gan.hash
    assert not list(tmp_path.glob("*/training/.shared-*"))  # nothing is left behind


@pytest.mark.slow
def test_an_error_of_a_process_is_raised_here(tmp_path):
    sst.tl.train_clip(paired(), config=TOWERS, layer="counts", out=tmp_path, device="cpu", iterations=3)
    with pytest.raises(TrainingProcessError, match=r"(?s)FileExistsError: .*resume=True"):
        sst.tl.train_clip(paired(), config=TOWERS, layer="counts", out=tmp_path, device="cpu", devices=2, resume=False)
    assert not list((tmp_path / "training").glob(".shared-*"))


def test_what_cannot_be_shared_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="batch_size=8 cannot be shared by devices=3"):
        sst.tl.train_clip(paired(), config=TOWERS, layer="counts", out=tmp_path / "clip", device="cpu", devices=3)
    assert not (tmp_path / "clip").exists()


def test_crops_are_written_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("sst.tl._training._processes.BLOCK", 7)
    crops = paired().obsm["crops"]
    rows = np.arange(0, 60, 2)
    write_crops(tmp_path / "crops.npy", crops, rows)
    np.testing.assert_array_equal(np.load(tmp_path / "crops.npy", mmap_mode="r"), crops[rows])
