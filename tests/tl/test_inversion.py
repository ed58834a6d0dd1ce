from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from factories import small_gan
from scipy import sparse

import sst
from sst.models import CLIP, GAN, Inversion, effects_apart
from sst.models._weights import make_distances
from sst.train import (
    CLIPConfig,
    EncoderConfig,
    FitConfig,
    InversionConfig,
    TowersConfig,
    inversion_loss,
    to_unit,
)

if TYPE_CHECKING:
    from pathlib import Path

GENES, SIZE = 6, 16
CHANNELS = ["CD298/B2M", "DAPI"]


def make_object(n: int = 60, seed: int = 0) -> ad.AnnData:
    """Discs whose radius follows gene 0 and whose brightness follows gene 1, in two groups."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 2
    counts = rng.poisson(4 + 4 * group[:, None] * (np.arange(GENES) < 2), (n, GENES))
    grid = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5))
    disc = 1 / (1 + np.exp(grid[None] - (2 + counts[:, 0] / 3)[:, None, None]))
    images = np.stack([disc * np.clip(30 + 12 * counts[:, 1], 0, 250)[:, None, None], disc * 120], axis=1)
    adata = ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {
                "condition": pd.Categorical(np.array(["normal", "tumor"])[group]),
                "split": np.where(np.arange(n) % 5, "train", "test"),
            },
            index=[f"cell{k}" for k in range(n)],
        ),
        var=pd.DataFrame(index=[f"g{k}" for k in range(GENES)]),
    )
    adata.obsm["crops"] = images.astype(np.uint8)
    adata.uns["crops"] = {"channels": CHANNELS, "size": 24, "output_size": SIZE, "pixel_size": 0.5}
    adata.layers["edited"] = (counts[:, ::-1] + 1).astype(np.float32)
    return adata


LARGER = dict.fromkeys(["generator__z_dim", "generator__w_dim", "generator__gene_width", "generator__channel_max"], 16)
FIT = FitConfig(iterations=12, batch_size=8, log_every=4, checkpoint_every=6, evaluate_every=6, sample_every=0)
CLIP_CONFIG = CLIPConfig(towers=TowersConfig(dim=12, widths=(8, 16), transform="standard"), fit=FIT)
INVERSION_CONFIG = InversionConfig(
    encoder=EncoderConfig(widths=(8, 8, 12, 16), depths=(1, 1, 1, 1), head_width=16), lr=3e-3, fit=FIT
)


def make_gan(adata: ad.AnnData) -> GAN:
    return small_gan(adata, genes_act=20, generator__channel_base=128, **LARGER)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ad.AnnData, CLIP, Inversion, Path]:
    folder = tmp_path_factory.mktemp("models")
    adata = make_object()
    clip = sst.tl.train_clip(adata, config=CLIP_CONFIG, out=folder / "clip", device="cpu")
    inversion = sst.tl.train_inversion(
        adata, gan=make_gan(adata), clip="clip", config=INVERSION_CONFIG, out=folder / "inversion", device="cpu"
    )
    return adata, clip, inversion, folder


def test_training_leaves_what_it_promises(trained: tuple, tmp_path: Path) -> None:
    adata, clip, inversion, _ = trained
    for key in ("X_clip_image", "X_clip_expression"):
        assert adata.obsm[key].shape == (60, 12)
        np.testing.assert_allclose(np.linalg.norm(adata.obsm[key], axis=1), 1, atol=1e-5)
    logged = np.log1p(adata.X.toarray()[adata.obs["split"] == "train"])
    np.testing.assert_allclose(clip.towers.standard.mean, logged.mean(0), rtol=1e-5)
    np.testing.assert_allclose(clip.towers.standard.std, logged.std(0), rtol=1e-4)
    assert set(clip.metrics) >= {"image_to_expression_top1", "expression_to_image_top10", "chance_top1", "rank"}
    assert clip.metrics["chance_top1"] == pytest.approx(1 / 12)
    assert set(inversion.metrics) == {"psnr", "ssim", *(f"{m} {c}" for m in ("psnr", "ssim") for c in CHANNELS)}
    assert adata.uns["sst"]["last"] == "inversion"
    assert adata.uns["inversion"]["report"]["perceptual"] == "clip"
    assert inversion.config.training.loss.identity == "clip"
    notes = inversion.registry.notes
    assert notes["perceptual loss"] == "features of the own CLIP image tower, in place of LPIPS"
    assert notes["identity loss"].endswith("in place of MoCo v2")
    assert notes["image tower"] == clip.registry.notes["image tower"]
    assert "small residual network, widths [8, 16], started from random weights" in repr(clip)
    assert "perceptual loss: features of the own CLIP" in repr(inversion)
    copy = adata.copy()
    copy.write_h5ad(tmp_path / "a.h5ad")
    copy.write_zarr(tmp_path / "a.zarr")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert sst.models.resolve(back).hash == inversion.hash
    assert back.uns["inversion"]["report"]["notes"] == notes
    assert back.uns["inversion"]["report"]["psnr DAPI"] == pytest.approx(inversion.metrics["psnr DAPI"])


def test_models_survive_their_folders(trained: tuple) -> None:
    adata, clip, inversion, folder = trained
    loaded = sst.models.load(folder / "inversion", device="cpu")
    assert isinstance(loaded, Inversion)
    assert loaded.hash == inversion.hash
    assert loaded.config == inversion.config
    assert loaded.metrics == pytest.approx(inversion.metrics)
    assert loaded.registry == inversion.registry
    np.testing.assert_array_equal(loaded.generate(adata), inversion.generate(adata))
    again = CLIP.load(folder / "clip", device="cpu")
    np.testing.assert_array_equal(again.embed_images(adata), clip.embed_images(adata))
    assert not list((folder).rglob("*.pkl")) + list(folder.rglob("*.pt"))


def test_models_of_earlier_versions_are_read(trained: tuple, tmp_path: Path) -> None:
    adata, _, inversion, _ = trained
    inversion.save(tmp_path / "old")
    about = json.loads((tmp_path / "old" / "config.json").read_text())
    del about["seal"]
    encoder = about["config"]["training"]["encoder"]
    for name in ("maps", "map_channels", "map_width", "norm"):
        del encoder[name]
    (tmp_path / "old" / "config.json").write_text(json.dumps(about))
    registry = json.loads((tmp_path / "old" / "registry.json").read_text())
    (tmp_path / "old" / "registry.json").write_text(json.dumps(registry | {"version": 1}))
    np.testing.assert_array_equal(
        sst.models.load(tmp_path / "old", device="cpu").generate(adata), inversion.generate(adata)
    )


def test_cells_are_themselves_in_any_batch_and_order(trained: tuple) -> None:
    adata, clip, inversion, _ = trained
    images = inversion.generate(adata, batch_size=60)
    assert images.shape == (60, 2, SIZE, SIZE)
    assert images.dtype == np.uint8
    some = np.array([7, 3, 50])
    close = inversion.generate(adata[some], batch_size=2).astype(int) - images[some]
    assert np.abs(close).max() <= 1  # rounding of float32 in other batches
    shuffled = adata[:, adata.var_names[::-1]].copy()
    np.testing.assert_array_equal(inversion.generate(shuffled, batch_size=60), images)
    np.testing.assert_allclose(clip.embed_expression(shuffled), clip.embed_expression(adata), atol=1e-6)
    arrays = inversion.generate(adata.X, images=adata.obsm["crops"], batch_size=60)
    np.testing.assert_array_equal(arrays, images)
    samples = inversion.generate(adata[:4], n_samples=3)
    assert samples.shape == (4, 3, 2, SIZE, SIZE)
    np.testing.assert_array_equal(samples, inversion.generate(adata[:4], n_samples=3))


def test_edited_genes_never_reach_the_codes(trained: tuple) -> None:
    adata, _, inversion, _ = trained
    small = adata[:6].copy()
    edited = inversion.generate(small, layer="edited", refine=1, refine_steps=3)
    small.layers["unedited"] = small.X.copy()
    small.X = sparse.csr_matrix(small.layers["edited"])
    np.testing.assert_array_equal(inversion.generate(small, refine=1, refine_steps=3, source_layer="unedited"), edited)
    other = inversion.generate(small, refine=1, refine_steps=3)  # codes found under the edited genes: another image
    assert (other != edited).any()


def test_refining_never_makes_a_cell_worse(trained: tuple) -> None:
    adata, _, inversion, _ = trained
    weights = inversion.config.training.loss
    perceptual, identity = make_distances(weights, inversion.towers)
    real = to_unit(torch.from_numpy(adata.obsm["crops"]))
    loss = []
    for steps in (0, 3, 40):
        made = to_unit(torch.from_numpy(inversion.generate(adata, refine_steps=steps)))
        with torch.no_grad():
            parts = (0.5, perceptual, perceptual.targets(real)), (0.5, identity, identity.targets(real))
            loss.append(inversion_loss(made, real, l2=15, perceptual=parts[0], identity=parts[1])["total"].numpy())
    assert (loss[1] <= loss[0] + 1e-2).all()  # images are rounded to 8 bits here
    assert (loss[2] <= loss[0] + 1e-2).all()
    assert loss[2].mean() < 0.95 * loss[0].mean()


def test_maps_serve_every_use(trained: tuple, tmp_path: Path) -> None:
    adata, clip, _, _ = (part.copy() if isinstance(part, ad.AnnData) else part for part in trained)
    config = INVERSION_CONFIG.replace(encoder__maps=1.0, encoder__norm="group", fit__iterations=30, lr=1e-2)
    model = sst.tl.train_inversion(
        adata, gan=make_gan(adata), clip=clip, config=config, out=tmp_path / "maps", device="cpu"
    )
    loaded = Inversion.load(tmp_path / "maps", device="cpu")
    plain = model.generate(adata, batch_size=7)
    np.testing.assert_allclose(
        loaded.generate(adata[::-1])[::-1].astype(int), plain, atol=1
    )  # batches differ: rounding
    assert [m.shape[1] for m in model.encoder(torch.zeros(1, 2, SIZE, SIZE)).maps] == [4, 8, 8, 16, 16]

    def error(**options: int) -> np.ndarray:
        return np.square(model.generate(adata, **options).astype(float) - adata.obsm["crops"]).mean()

    assert error(refine_steps=8) < error()
    images = effects_apart(model, adata, "edited")
    np.testing.assert_array_equal(images["reconstructed"], model.generate(adata))
    np.testing.assert_array_equal(images["both"], model.generate(adata, layer="edited", fade=1.0))
    several = model.generate(adata[:3], n_samples=2)
    assert several.shape == (3, 2, 2, SIZE, SIZE)


def test_effects_apart(trained: tuple) -> None:
    adata, _, inversion, _ = trained
    images = effects_apart(inversion, adata, "edited", 0.7)
    expected = {
        "reconstructed": inversion.generate(adata),
        "fade_only": inversion.generate(adata, fade=0.7),
        "genes_only": inversion.generate(adata, layer="edited"),
        "both": inversion.generate(adata, layer="edited", fade=0.7),
    }
    assert set(images) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(images[name], value)
    assert len({value.tobytes() for value in expected.values()}) == 4
    copy = adata.copy()
    sst.tl.edit_effects(copy, fade=0.7)
    np.testing.assert_array_equal(copy.obsm["edited_fade_only"], expected["fade_only"])
    np.testing.assert_array_equal(copy.obsm["edited_genes_only"], expected["genes_only"])
    np.testing.assert_array_equal(copy.obsm["edited"], expected["both"])
    np.testing.assert_array_equal(copy.obsm["generated"], expected["reconstructed"])
    report = copy.uns["edited_effects"]["report"]
    by_hand = np.abs(expected["both"].astype(int) - expected["fade_only"]).mean((0, 2, 3))
    np.testing.assert_allclose(report.loc["genes at full fade"], by_hand)


def test_transition_ends_where_the_edit_ends(trained: tuple) -> None:
    adata, _, inversion, _ = trained
    da = sst.tl.transition(adata, steps=5, cells=["cell3", "cell8"])
    assert da.dims == ("step", "cell", "channel", "y", "x")
    assert da.shape == (5, 2, 2, SIZE, SIZE)
    assert list(da["cell"].to_numpy()) == ["cell3", "cell8"]
    assert list(da["channel"].to_numpy()) == CHANNELS
    part = adata[["cell3", "cell8"]]
    np.testing.assert_array_equal(da[0], inversion.generate(part))
    np.testing.assert_array_equal(da[-1], inversion.generate(part, layer="edited", fade=1.0))
    middle = part.copy()
    middle.layers["half"] = (0.5 * part.X.toarray() + 0.5 * part.layers["edited"]).astype(np.float32)
    np.testing.assert_array_equal(da[2], inversion.generate(middle, layer="half", fade=0.5))
    without = sst.tl.transition(adata, steps=2, cells=[3, 8], fade="without")
    np.testing.assert_array_equal(without[-1], inversion.generate(part, layer="edited"))
    only = sst.tl.transition(adata, steps=2, cells=adata.obs_names.isin(part.obs_names), fade="only")
    np.testing.assert_array_equal(only[-1], inversion.generate(part, fade=1.0))
    assert sst.tl.transition(adata, steps=2, n_cells=7).sizes["cell"] == 7


def test_transition_of_a_gan(trained: tuple) -> None:
    adata, _, _, _ = trained
    gan = make_gan(adata)
    da = sst.tl.transition(adata, model=gan, steps=3, cells=[5, 9], seed=4)
    part = adata[[5, 9]]
    np.testing.assert_array_equal(da[0], gan.generate(part, seed=4))
    np.testing.assert_array_equal(da[-1], gan.generate(part, layer="edited", seed=4))
    with pytest.raises(ValueError, match="needs an inversion"):
        sst.tl.transition(adata, model=gan, steps=3, fade="only")


def test_identity(trained: tuple) -> None:
    adata, _, _, _ = trained
    copy = adata.copy()
    copy.obsm["same"] = copy.obsm["crops"].copy()
    copy.obsm["inside"] = copy.obsm["crops"].copy()
    copy.obsm["inside"][:, :, 6:10, 6:10] = 255
    copy.obsm["outside"] = copy.obsm["crops"].copy()
    copy.obsm["outside"][:, :, 0] += 10
    for key in ("same", "inside", "outside"):
        sst.tl.identity(copy, key=key)
    np.testing.assert_allclose(copy.obs["same_identity"], 1, atol=1e-5)
    assert (copy.obs["inside_identity"] < 0.9999).all()
    assert np.isinf(copy.obs["same_background_psnr"]).all()
    assert np.isinf(copy.obs["inside_background_psnr"]).all()
    far = np.hypot(*(np.mgrid[:SIZE, :SIZE] - 7.5)) / 8 > 0.5
    expected = 10 * np.log10(255**2 / (100 * SIZE / far.sum()))
    np.testing.assert_allclose(copy.obs["outside_background_psnr"], expected, rtol=1e-5)
    with pytest.raises(TypeError, match="embeds no images"):
        sst.tl.identity(copy, key="same", model=make_gan(adata))


def test_what_does_not_fit_is_named(trained: tuple, tmp_path: Path) -> None:
    adata, _, inversion, _ = trained
    other = adata.copy()
    other.uns["crops"]["channels"] = ["CD45", "DAPI"]
    with pytest.raises(ValueError, match="CD45"):
        inversion.generate(other)
    with pytest.raises(ValueError, match="g5"):
        inversion.generate(adata[:, :5].copy())
    large = adata.copy()
    large.obsm["crops"] = np.zeros((60, 2, 32, 32), np.uint8)
    with pytest.raises(ValueError, match="32"):
        inversion.generate(large)
    raw = adata.copy()
    raw.obsm["crops"] = raw.obsm["crops"].astype(np.uint16)
    for call in (lambda: inversion.generate(raw), lambda: sst.tl.train_clip(raw, config=CLIP_CONFIG, out=tmp_path)):
        with pytest.raises(TypeError, match="rescale_intensity"):
            call()
    broken = adata.copy()
    counts = broken.X.toarray()
    counts[4, 2] = np.nan
    broken.X = sparse.csr_matrix(counts)
    with pytest.raises(ValueError, match="cell4"):
        inversion.generate(broken)
    with pytest.raises(ValueError, match="'cell4' and gene 'g2'"):
        sst.tl.train_clip(broken, config=CLIP_CONFIG, out=tmp_path)
    with pytest.raises(TypeError, match="images="):
        inversion.generate(adata.X)
    with pytest.raises(TypeError, match="a CLIP is needed"):
        sst.tl.train_inversion(adata, gan=make_gan(adata), clip="inversion", config=INVERSION_CONFIG, out=tmp_path)
    with pytest.raises(KeyError, match="nocell"):
        sst.tl.transition(adata, cells=["nocell"])
    with pytest.raises(KeyError, match="nolayer"):
        sst.tl.transition(adata, layer="nolayer")
    with pytest.raises(ValueError, match=r"fade=2"):
        inversion.generate(adata, fade=2)


def test_training_resumes(trained: tuple, tmp_path: Path) -> None:
    adata, clip, inversion, _ = trained
    copy = adata.copy()
    for count in (7, 12):
        resumed = sst.tl.train_inversion(
            copy,
            gan=make_gan(copy),
            clip=clip,
            config=INVERSION_CONFIG.replace(fit__iterations=count),
            out=tmp_path / "inversion",
            device="cpu",
        )
        as_of_an_earlier_version(tmp_path / "inversion" / "training" / "run.json")
    assert resumed.history.index.max() == 12
    assert resumed.hash == inversion.hash  # bit for bit what one run gives


def as_of_an_earlier_version(path: Path) -> None:
    """A run's description without the settings that were added since."""
    run = json.loads(path.read_text())
    run["registry"]["version"] = 1
    run["config"]["encoder"] = {k: run["config"]["encoder"][k] for k in ("widths", "depths", "head_width", "weights")}
    path.write_text(json.dumps(run))


def test_genes_in_another_order_train_the_same(trained: tuple, tmp_path: Path) -> None:
    adata, clip, inversion, _ = trained
    shuffled = adata[:, adata.var_names[::-1]].copy()
    model = sst.tl.train_inversion(
        shuffled, gan=make_gan(adata), clip=clip, config=INVERSION_CONFIG, out=tmp_path / "inversion", device="cpu"
    )
    assert model.registry.genes == inversion.registry.genes
    assert model.hash == inversion.hash


def test_lazy_crops_are_read_once_a_chunk(trained: tuple) -> None:
    import dask.array as da

    adata, clip, inversion, _ = trained
    reads: list[int] = []

    def load(block: np.ndarray) -> np.ndarray:
        reads.append(len(block))
        return block

    crops = np.asarray(adata.obsm["crops"])
    lazy = da.from_array(crops, chunks=(25, -1, -1, -1)).map_blocks(
        load, dtype=np.uint8, meta=np.empty((0,) * 4, np.uint8)
    )
    np.testing.assert_array_equal(
        inversion.generate(adata.X, images=lazy, batch_size=10),
        inversion.generate(adata.X, images=crops, batch_size=10),
    )
    assert sorted(reads) == [10, 25, 25]
    np.testing.assert_array_equal(clip.embed_images(lazy, batch_size=7), clip.embed_images(crops, batch_size=7))
