"""Edits whose images go to a store: the same images, bit for bit, and taken up where a call was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from factories import small_gan

import sst
from sst.models import Editor, Registry, build_editor
from sst.tl._editing import _pictures
from sst.train import CLIPConfig, EditorConfig, EncoderConfig, FitConfig, InversionConfig, TowersConfig

if TYPE_CHECKING:
    from pathlib import Path


def small_editor(adata: ad.AnnData) -> Editor:
    config = EditorConfig.preset("demo").replace(editor__width=8, editor__code_dim=8)
    registry = Registry.from_adata(adata, groupby="condition", kind="editor")
    torch.manual_seed(0)
    network = build_editor(registry, config)
    with torch.no_grad():
        network.whole.weight.normal_(std=0.5)
    return Editor(registry, config, network)


def small_inversion(adata: ad.AnnData) -> sst.models.Inversion:
    fit = FitConfig(iterations=1, batch_size=8, checkpoint_every=0, evaluate_every=0, sample_every=0)
    cells = adata.copy()
    gan = small_gan(adata, genes_act=20, generator__channel_base=128)
    clip_config = CLIPConfig(towers=TowersConfig(dim=8, widths=(8, 8), transform="standard"), fit=fit)
    clip = sst.tl.train_clip(cells, config=clip_config, device="cpu", embed=False)
    encoder = EncoderConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), head_width=8)
    return sst.tl.train_inversion(
        cells, gan=gan, clip=clip, config=InversionConfig(encoder=encoder, fit=fit), device="cpu"
    )


MODELS = {"gan": lambda a: small_gan(a, genes_act=20), "editor": small_editor, "inversion": small_inversion}


@pytest.fixture
def adata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ad.AnnData:
    monkeypatch.chdir(tmp_path)  # trainings make folders
    rng = np.random.default_rng(0)
    X = np.vstack([rng.poisson(r, (30, 6)) for r in ([20, 10, 5, 9, 20, 5], [40, 10, 5, 9, 20, 8])])
    obs = pd.DataFrame({"condition": pd.Categorical(np.repeat(["n", "t"], 30))}, index=[f"c{i}" for i in range(60)])
    adata = ad.AnnData(
        sp.csr_matrix(X.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(6)])
    )
    adata.obsm["crops"] = rng.integers(0, 255, (60, 2, 16, 16)).astype(np.uint8)
    adata.uns["crops"] = {"channels": ["CD298/B2M", "DAPI"], "size": 24, "output_size": 16, "pixel_size": 0.5}
    return adata


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pictures, "BLOCK", 16)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("subset", [None, "condition == 't'"])
def test_slots_equal_those_in_memory(adata: ad.AnnData, tmp_path: Path, kind: str, subset: str | None) -> None:
    model = MODELS[kind](adata)
    inside, outside = adata.copy(), adata.copy()
    options = {"genes": ["g0", "g5"], "groupby": "condition", "subset": subset, "model": model, "batch_size": 8}
    sst.tl.edit(inside, **options)
    sst.tl.edit(outside, **options, store=tmp_path / "pictures.zarr")
    slots = [k for k, v in inside.obsm.items() if v.ndim == 4]
    assert set(slots) == {k for k, v in outside.obsm.items() if v.ndim == 4}
    for slot in slots:
        assert slot == "crops" or hasattr(outside.obsm[slot], "dask"), slot
        np.testing.assert_array_equal(np.asarray(outside.obsm[slot]), inside.obsm[slot], err_msg=slot)
    for key in ("edited", sst.models.image_before(kind)):
        for one in (inside, outside):
            sst.tl.morphology(one, key=key)
    pd.testing.assert_frame_equal(inside.obs, outside.obs, check_like=True)
    outside.write_zarr(tmp_path / "object.zarr")
    np.testing.assert_array_equal(ad.read_zarr(tmp_path / "object.zarr").obsm["edited"], inside.obsm["edited"])


def test_an_interrupted_edit_goes_on(adata: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_editor(adata)
    options = {"genes": ["g0"], "groupby": "condition", "model": model, "store": tmp_path / "p.zarr", "batch_size": 8}
    generate, drawn = type(model).generate, []

    def counted(self, part, **given):
        if len(drawn) == 2 and "stop" not in given:
            raise KeyboardInterrupt
        drawn.append(part.n_obs)
        return generate(self, part, **given)

    monkeypatch.setattr(type(model), "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        sst.tl.edit(adata, **options)
    assert "edited" not in adata.obsm
    monkeypatch.setattr(type(model), "generate", lambda s, p, **k: drawn.append(p.n_obs) or generate(s, p, **k))
    sst.tl.edit(adata, **options)
    assert sum(drawn) < 60 + 32
    whole = adata.copy()
    sst.tl.edit(whole, **options | {"store": None})
    np.testing.assert_array_equal(np.asarray(adata.obsm["edited"]), whole.obsm["edited"])
    seen = len(drawn)
    sst.tl.edit(adata, **options)  # finished: nothing is drawn
    assert len(drawn) == seen
    with pytest.raises(FileExistsError, match="other pictures"):
        sst.tl.edit(adata, **options | {"genes": ["g5"]})


def test_large_images_of_a_store_go_to_disk_by_themselves(
    adata: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sst.io.write_store(adata, tmp_path / "cells.zarr")
    stored = sst.io.open_store(tmp_path / "cells.zarr")
    model = small_gan(adata)
    sst.tl.generate(stored, model=model, batch_size=8)
    assert isinstance(stored.obsm["generated"], np.ndarray)  # it fits
    monkeypatch.setattr(_pictures, "SHARE", 0.0)
    sst.tl.generate(adata, model=model, batch_size=8)
    assert isinstance(adata.obsm["generated"], np.ndarray)  # crops are in memory, so are images
    sst.tl.generate(stored, model=model, batch_size=8)
    assert hasattr(stored.obsm["generated"], "dask")
    assert len(list(tmp_path.glob("cells.pictures-*.zarr"))) == 1
    np.testing.assert_array_equal(np.asarray(stored.obsm["generated"]), adata.obsm["generated"])
    with pytest.raises(ValueError, match="n_samples=2"):
        sst.tl.generate(stored, model=model, n_samples=2, store=tmp_path / "x.zarr")


def test_what_an_edit_wrote_is_no_other_scale(adata: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    model = small_gan(adata)
    sst.tl.edit(adata, ["g0"], "condition", model=None)
    assert (adata.layers["edited"].data % 1).any()
    with caplog.at_level("WARNING", logger="sst"):
        sst.tl.generate(adata, model=model, layer="edited", key_added="drawn")
        adata.layers["logged"] = np.log1p(adata.X)
        assert "another scale" not in caplog.text
        sst.tl.generate(adata, model=model, layer="logged", key_added="drawn")
    assert "another scale" in caplog.text
