"""Edits whose images go to a store: the same images, bit for bit, and taken up where a call was interrupted."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import xarray as xr
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
        network.levers.normal_(std=0.5)
        network.response.normal_()  # genes that act
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


def small_ensemble(adata: ad.AnnData) -> sst.models.Ensemble:
    first, second = small_editor(adata), small_editor(adata)
    with torch.no_grad():
        second.editor.levers.mul_(1.5)
    return sst.models.Ensemble([first, second])


MODELS = {
    "gan": lambda a: small_gan(a, genes_act=20),
    "editor": small_editor,
    "inversion": small_inversion,
    "ensemble": small_ensemble,
}


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
    assert isinstance(outside.layers["edited"].data.base, np.memmap | mmap.mmap)
    assert (outside.layers["edited"] != inside.layers["edited"]).nnz == 0
    slots = [k for k, v in inside.obsm.items() if v.ndim == 4]
    assert set(slots) == {k for k, v in outside.obsm.items() if v.ndim == 4}
    for slot in slots:
        assert slot == "crops" or hasattr(outside.obsm[slot], "dask"), slot
        np.testing.assert_array_equal(np.asarray(outside.obsm[slot]), inside.obsm[slot], err_msg=slot)
    if kind == "ensemble":
        np.testing.assert_array_equal(outside.obsm["edited_spread"], inside.obsm["edited_spread"])
        assert inside.obsm["edited_spread"].any()
    for key in ("edited", sst.models.image_before(str(model.registry.kind))):
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
    with pytest.raises(FileExistsError, match="another edit's expression"):
        sst.tl.edit(adata, **options | {"genes": ["g5"]})
    with pytest.raises(FileExistsError, match="other pictures"):
        sst.tl.edit(adata, **options | {"model": small_gan(adata, genes_act=20)})


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


@pytest.mark.parametrize("form", ["csr", "dense", "dask"])
def test_expression_alone_goes_to_a_store_too(adata: ad.AnnData, tmp_path: Path, form: str) -> None:
    if form != "csr":
        adata.X = adata.X.toarray() if form == "dense" else da.from_array(adata.X.toarray(), chunks=(16, 6))
    outside = adata.copy()
    for one, store in ((adata, None), (outside, tmp_path / "p.zarr"), (outside, tmp_path / "p.zarr")):
        sst.tl.edit(one, None, "condition", model=None, store=store)
    made, expected = outside.layers["edited"], adata.layers["edited"]
    assert not hasattr(made, "dask")
    np.testing.assert_array_equal(*(np.asarray(m.toarray() if sp.issparse(m) else m) for m in (made, expected)))
    pd.testing.assert_frame_equal(*(one.uns["edited"]["report"]["directions"] for one in (adata, outside)))


@pytest.mark.parametrize("kind", ["gan", "inversion"])
def test_a_transition_on_disk_equals_that_in_memory(adata: ad.AnnData, tmp_path: Path, kind: str) -> None:
    model = MODELS[kind](adata)
    sst.tl.edit(adata, ["g0"], "condition", model=None)
    options = {"model": model, "steps": 3, "cells": np.arange(41)[::-1], "batch_size": 4}
    inside = sst.tl.transition(adata, **options)
    assert isinstance(inside.data, np.ndarray)
    assert (inside[0] != inside[2]).any()
    outside = sst.tl.transition(adata, **options, store=tmp_path / "way.zarr")
    assert hasattr(outside.data, "dask")
    xr.testing.assert_identical(outside.compute(), inside)
    xr.testing.assert_identical(sst.tl.transition(adata, **options, devices=["cpu", "cpu"]), inside)
    path = sst.pl.transition(outside, save=tmp_path / "way.gif", cells=[0, 3], tile=16)
    assert path.exists()


def test_effects_on_disk_equal_those_in_memory(adata: ad.AnnData, tmp_path: Path) -> None:
    model = small_inversion(adata)
    sst.tl.edit(adata, ["g0"], "condition", model=None)
    outside = adata.copy()
    sst.tl.edit_effects(adata, model=model, fade=0.5, batch_size=8, refine=1)
    sst.tl.edit_effects(outside, model=model, fade=0.5, batch_size=8, refine=1, store=tmp_path / "p.zarr")
    for slot in ("generated", "edited", "edited_fade_only", "edited_genes_only"):
        np.testing.assert_array_equal(np.asarray(outside.obsm[slot]), adata.obsm[slot])
    pd.testing.assert_frame_equal(outside.uns["edited_effects"]["report"], adata.uns["edited_effects"]["report"])


def test_identity_reads_a_store_as_it_reads_memory(adata: ad.AnnData, tmp_path: Path) -> None:
    model = small_inversion(adata)
    outside = adata.copy()
    for one, store in ((adata, None), (outside, tmp_path / "p.zarr")):
        sst.tl.edit(one, ["g0"], "condition", subset="condition == 't'", model=model, batch_size=8, store=store)
        sst.tl.identity(one, model=model)
    assert hasattr(outside.obsm["edited"], "dask")
    for score in ("identity", "background_psnr"):
        np.testing.assert_array_equal(outside.obs[f"edited_{score}"], adata.obs[f"edited_{score}"])
        assert adata.obs[f"edited_{score}"].notna().sum() == 30  # the others have no picture


@pytest.mark.parametrize("kind", MODELS)
def test_devices_share_the_cells_of_a_call(
    adata: ad.AnnData, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = MODELS[kind](adata)
    options = {"genes": ["g0", "g5"], "groupby": "condition", "model": model, "batch_size": 8}
    alone, shared, stored = adata.copy(), adata.copy(), adata.copy()
    sst.tl.edit(alone, **options)
    with caplog.at_level("INFO", logger="sst"):
        sst.tl.edit(shared, **options, devices=["cpu", "cpu"])
    assert "of it waiting" in caplog.text
    sst.tl.edit(stored, **options, devices=["cpu", "cpu", "cpu"], store=tmp_path / "p.zarr")
    for slot in (k for k, v in alone.obsm.items() if v.ndim == 4):
        np.testing.assert_array_equal(shared.obsm[slot], alone.obsm[slot], err_msg=slot)
        np.testing.assert_array_equal(np.asarray(stored.obsm[slot]), alone.obsm[slot], err_msg=slot)


def test_cells_beyond_training_are_read_so_on_every_device(adata: ad.AnnData) -> None:
    model = small_editor(adata)
    options = {"genes": ["g0"], "groupby": "condition", "model": model, "batch_size": 8, "latent": True, "force": True}
    alone, shared = adata.copy(), adata.copy()
    sst.tl.edit(alone, **options)
    sst.tl.edit(shared, **options, devices=2)
    np.testing.assert_array_equal(shared.obsm["edited"], alone.obsm["edited"])


@pytest.mark.parametrize(
    ("devices", "error", "said"),
    [
        ([], ValueError, "number of devices"),
        (0, ValueError, "devices=0"),
        (10**9, ValueError, "devices=1000000000"),
        (2.5, TypeError, "number of devices"),
        (["cpu", "gpu7"], ValueError, "'gpu7' is no device"),
        ("cuda:99", ValueError, "has .* GPU"),
    ],
)
def test_devices_that_are_none(adata: ad.AnnData, devices: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        sst.tl.generate(adata, model=small_gan(adata), devices=devices)


def test_as_many_cells_at_once_as_memory_has_room_for(adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, usual in (("gan", 64), ("editor", 64), ("inversion", 32), ("ensemble", 64)):
        assert MODELS[kind](adata).cells_at_once() == usual, kind
    model = small_gan(adata)
    monkeypatch.setattr(type(model), "_map_bytes", lambda _: 3 << 20)
    assert model.cells_at_once() == 16  # 21 would fill 64 MiB
    monkeypatch.setattr(type(model), "_map_bytes", lambda _: 1 << 30)
    assert model.cells_at_once() == 8
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    monkeypatch.setattr("sst.models._base.free_memory", lambda _: 80 << 30)
    for largest, fits in ((16 << 20, 128), (1 << 20, 512), (1 << 40, 8)):
        monkeypatch.setattr(type(model), "_map_bytes", lambda _, largest=largest: largest)
        assert model.cells_at_once() == fits


@pytest.mark.slow
def test_workers_of_a_client_draw(adata: ad.AnnData, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    distributed = pytest.importorskip("distributed")
    sst.io.write_store(adata, tmp_path / "cells.zarr")
    options = {"genes": ["g0", "g5"], "groupby": "condition", "batch_size": 8, "model": small_editor(adata)}
    alone, stored = adata.copy(), sst.io.open_store(tmp_path / "cells.zarr")
    sst.tl.edit(alone, **options)
    cluster = {"n_workers": 1, "threads_per_worker": 2, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**cluster) as local, distributed.Client(local), caplog.at_level("INFO", logger="sst"):
        sst.tl.edit(stored, **options, store=tmp_path / "a.zarr")
        assert "drawing 4 blocks on" in caplog.text
        sst.tl.edit(adata, **options, store=tmp_path / "b.zarr")  # crops in memory travel with the cells
    for one in (stored, adata):
        np.testing.assert_array_equal(np.asarray(one.obsm["edited"]), alone.obsm["edited"])


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
