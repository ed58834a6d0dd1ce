"""Trainings that keep slides apart; one slide is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import SMALL_NETWORKS, paired_cells

import sst
from sst.nn import Discriminator
from sst.train import CLIPConfig, EditorConfig, GANConfig
from sst.train._clip_loss import contrastive_loss, soft_contrastive_loss
from sst.train._gan import SlideStains
from sst.train._losses import info_nce

FIT = {
    "fit__batch_size": 6, "fit__iterations": 3, "fit__log_every": 1, "fit__evaluate_every": 3, "fit__checkpoint_every": 3,
    "fit__sample_every": 0,
}  # fmt: skip
DISCRIMINATOR = {k: v for k, v in SMALL_NETWORKS.items() if k.startswith("discriminator")}
EDITOR = EditorConfig.preset("demo").replace(
    editor__width=4, editor__width_max=8, editor__code_dim=8, **DISCRIMINATOR, **FIT
)
GAN = GANConfig.preset("demo").replace(**SMALL_NETWORKS, **FIT)
CLIP = CLIPConfig.preset("demo").replace(**FIT)


def study(n=60, side=16):
    """Cells of two groups, two donors each; of the donors' cells every fourth is held out."""
    adata = paired_cells(n, side=side)
    adata.obs["donor"] = np.array(["n1", "t1", "n2", "t2"])[np.arange(n) % 4]
    adata.obs["one"] = "slide"
    adata.obs["split"] = np.where(np.arange(n) // 4 % 4, "train", "test")
    return adata


TRAININGS = {"editor": (sst.tl.train_editor, EDITOR), "gan": (sst.tl.train_gan, GAN), "clip": (sst.tl.train_clip, CLIP)}


@pytest.mark.parametrize("kind", list(TRAININGS))
def test_one_slide_is_none_and_several_are_recorded(kind, tmp_path):
    train, config = TRAININGS[kind]
    adata = study(side=16)
    models = {
        key: train(adata, batch_key=key, config=config, out=tmp_path / str(key), device="cpu", seed=0)
        for key in (None, "one", "donor")
    }
    assert models[None].hash == models["one"].hash != models["donor"].hash
    assert models[None].adjusted_for == models["one"].adjusted_for == ""
    back = sst.models.load(tmp_path / "donor")
    assert back.adjusted_for == "donor"
    assert back.registry.slides == ("n1", "n2", "t1", "t2")
    longer = config.replace(fit__iterations=5)
    with pytest.raises(ValueError, match="another registry"):
        train(adata, config=longer, out=tmp_path / "donor", device="cpu", seed=0)
    resumed = train(adata, batch_key="donor", config=longer, out=tmp_path / "donor", device="cpu", seed=0)
    assert resumed.history.index.max() == 5


def test_wrong_columns_are_named(tmp_path):
    adata = study()
    with pytest.raises(KeyError, match="batch_key"):
        sst.tl.train_editor(adata, batch_key="slide", config=EDITOR, out=tmp_path, device="cpu")
    adata.obs["donor"] = adata.obs["donor"].astype(object)
    adata.obs.loc["c5", "donor"] = "alone"
    with pytest.raises(ValueError, match="'alone' has a single training cell"):
        sst.tl.train_editor(adata, batch_key="donor", config=EDITOR, out=tmp_path, device="cpu")


def test_donors_that_training_did_not_see(tmp_path):
    """Held out by donor: the model knows those it learnt from, and edits the others."""
    adata = study()
    adata.obs["split"] = np.where(np.isin(adata.obs["donor"], ["n2", "t2"]), "test", "train")
    editor = sst.tl.train_editor(adata, batch_key="donor", config=EDITOR, out=tmp_path, device="cpu", seed=0)
    assert editor.registry.slides == ("n1", "t1")
    sst.tl.edit(adata, model=editor, latent=False)
    assert adata.obsm["edited"].shape == adata.obsm["crops"].shape


@pytest.mark.slow
def test_processes_share_the_batches_of_slides(tmp_path):
    adata = study()
    config = GAN.replace(fit__checkpoint_every=0, fit__evaluate_every=0, loss__ada_target=0.0)
    one = sst.tl.train_gan(adata, batch_key="donor", config=config, out=tmp_path / "one", device="cpu", seed=0)
    two = sst.tl.train_gan(
        adata, batch_key="donor", config=config, out=tmp_path / "two", device="cpu", seed=0, devices=2
    )
    assert two.registry.slides == one.registry.slides
    for name, value in one.weights().items():
        torch.testing.assert_close(two.weights()[name], value, atol=1e-4, rtol=1e-3)


def test_a_discriminator_is_told_the_slide():
    torch.manual_seed(0)
    told = Discriminator(
        img_channels=1, resolution=8, n_genes=3, n_slides=2, channel_base=64, channel_max=8, embed_dim=8
    )
    torch.manual_seed(0)
    untold = Discriminator(img_channels=1, resolution=8, n_genes=3, channel_base=64, channel_max=8, embed_dim=8)
    images, labels, x = torch.randn(4, 1, 8, 8), torch.zeros(4, dtype=torch.long), torch.rand(4, 3)
    first, second = (told(images, labels, x, torch.full((4,), s)) for s in (0, 1))
    assert (first != second).all()
    plain = untold(images, labels, x)
    for nowhere in (told(images, labels, x), told(images, labels, x, torch.full((4,), -1))):
        assert torch.equal(nowhere, plain)


@pytest.mark.parametrize("loss", [info_nce, contrastive_loss, soft_contrastive_loss])
def test_cells_are_told_from_those_of_their_slide(loss):
    """As if each slide were a batch of its own: what sets slides apart earns nothing."""
    torch.manual_seed(0)
    a, b, slides = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    alone = [loss(a[slides == s], b[slides == s], temperature=0.5) for s in (0, 1)]
    found = loss(a, b, temperature=0.5, slides=slides)
    torch.testing.assert_close(found, sum(alone) / 2)


def test_stains_are_those_of_the_mean_slide_on_average():
    stains = SlideStains(3, 2)
    images = torch.rand(3, 2, 4, 4) * 2 - 1
    assert torch.equal(stains(images, torch.tensor([0, 1, 2])), (images + 1) - 1)
    with torch.no_grad():
        stains.gain += 5.0  # all slides alike: nothing sets them apart
        stains.offset += 0.5
    torch.testing.assert_close(stains(images, torch.tensor([0, 1, 2])), images)
