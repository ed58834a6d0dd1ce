"""Nothing is reused that was made from something else, and no picture stands where none was drawn."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from factories import paired_cells

import sst

if TYPE_CHECKING:
    from pathlib import Path


class Model:
    """The first gene sets the grey level; counts how many cells it drew. Of ``starts_from="crop"``: what the gene adds to the crop."""

    hash, folder = "h", None

    def __init__(self, starts_from: str = "expression") -> None:
        kind = {"code": "inversion", "crop": "editor"}.get(starts_from, "gan")
        self.registry = SimpleNamespace(
            kind=kind, groupby="condition", check=lambda *_, **__: None, channels=["marker", "DAPI"], output_size=8
        )
        self.starts_from = starts_from
        self.drawn: list[int] = []

    def generate(
        self, data, *, layer=None, seed=0, batch_size=None, progress=None, source_layer=None, **_
    ) -> np.ndarray:
        self.drawn.append(data.n_obs)
        counts = data.X if layer is None else data.layers[layer]
        counts = np.asarray(counts.todense() if hasattr(counts, "todense") else counts)
        level = np.clip(10 + 5 * counts[:, 0], 1, 255)
        base = np.asarray(data.obsm["crops"]) // 2 if self.starts_from == "crop" else np.zeros((1, 2, 8, 8))
        return (base + np.broadcast_to(level.reshape(-1, 1, 1, 1) // 2, (data.n_obs, 2, 8, 8))).astype(np.uint8)


@pytest.fixture
def cells() -> ad.AnnData:
    adata = paired_cells(80)
    adata.obs["split"] = np.where(np.arange(80) // 2 % 2, "test", "train")
    return adata


def edit(adata: ad.AnnData, model: Model | None, **options) -> None:
    sst.tl.edit(adata, ["g0"], method="scale", value=2.0, model=model, **options)


def change(adata: ad.AnnData, how: str) -> None:
    if how == "times 3":
        adata.X = adata.X * 3
    elif how == "in place":
        adata.X.data[:] += 1
    else:
        adata.X = ad.AnnData(np.log1p(adata.X.toarray())).X


@pytest.mark.parametrize("how", ["times 3", "in place", "log1p"])
def test_other_counts_are_drawn_anew(cells: ad.AnnData, how: str) -> None:
    model = Model()
    edit(cells, model)
    edit(cells, model, key_added="again")
    assert model.drawn == [80, 80, 80]  # before, after, after: nothing has changed
    change(cells, how)
    edit(cells, model)
    np.testing.assert_array_equal(cells.obsm["generated"], model.generate(cells))


def test_generate_leaves_what_an_edit_can_take(cells: ad.AnnData) -> None:
    model = Model()
    cells.obsm["generated"] = model.generate(cells)
    cells.uns["generated"] = {"params": {"model_hash": "h", "seed": 0, "layer": ""}}  # as an earlier version noted it
    edit(cells, model)
    assert model.drawn == [80, 80, 80]


def test_a_subset_is_drawn_alone(cells: ad.AnnData) -> None:
    model = Model()
    some, more = np.arange(80) < 10, (np.arange(80) >= 5) & (np.arange(80) < 20)
    edit(cells, model, subset=some)
    assert model.drawn == [10, 10]
    np.testing.assert_array_equal(cells.obs["edited_drawn"], some)
    assert not cells.obsm["generated"][~some].any()
    edit(cells, model, subset=more, key_added="second")
    assert model.drawn == [10, 10, 10, 15]  # five were there
    np.testing.assert_array_equal(cells.obs["generated_drawn"], some | more)
    edit(cells, model)
    assert model.drawn == [10, 10, 10, 15, 60, 80]
    assert not {"generated_drawn", "edited_drawn"} & set(cells.obs)
    np.testing.assert_array_equal(cells.obsm["generated"], model.generate(cells))


def test_reconstructions_of_a_subset(cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("code")

    def apart(model, part, layer, fade, **options) -> dict[str, np.ndarray]:
        made = {name: model.generate(part, layer=layer) for name in ("fade_only", "genes_only", "both")}
        return made | {"reconstructed": model.generate(part)}

    monkeypatch.setattr("sst.models.effects_apart", apart)
    some = np.arange(80) < 10
    edit(cells, model, subset=some)
    assert set(model.drawn) == {10}
    for slot in ("generated", "edited", "edited_fade_only", "edited_genes_only"):
        np.testing.assert_array_equal(cells.obs[f"{slot}_drawn"], some)
    edit(cells, Model())
    assert not {"edited_fade_only", "edited_genes_only"} & set(cells.obsm)


def test_cells_without_a_picture_are_nowhere_measured(cells: ad.AnnData) -> None:
    some = np.arange(80) < 30
    edit(cells, Model(), subset=some)
    sst.tl.morphology(cells, key="edited")
    assert cells.obs["edited_DAPI_window_mean"][~some].isna().all()
    assert cells.obs["edited_DAPI_window_mean"][some].notna().all()
    sst.tl.distances(cells, repeats=2, features="pixel-pca")
    whole = cells.uns["distances"]["table"]
    sst.tl.distances(cells, repeats=2, features="pixel-pca", subset=some)
    np.testing.assert_allclose(whole["mean"], cells.uns["distances"]["table"]["mean"])
    with pytest.raises(ValueError, match="images of none"):
        sst.tl.morphology(cells, key="edited", subset=~some)
    figure = sst.pl.gallery(cells, keys=["edited"], n_cells=40, return_fig=True)
    assert all(image.get_array().max() > 0 for axes in figure.axes for image in axes.images)


def test_an_edit_without_pictures_keeps_none_of_another(cells: ad.AnnData) -> None:
    edit(cells, Model())
    cells.obsm["edited_other"] = cells.obsm["edited"]
    edit(cells, None)
    assert "edited" not in cells.obsm
    assert {"generated", "edited_other"} <= set(cells.obsm)


def test_measures_of_other_pictures_are_taken_again(cells: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    model = Model()
    edit(cells, model)
    sst.tl.morphology(cells, key="generated", subset=np.arange(80) < 40)
    cells.X = cells.X * 3
    with caplog.at_level(logging.WARNING, logger="sst"):
        edit(cells, model)
    assert "measure again" in caplog.text
    sst.tl.fidelity(cells, features=["DAPI_window_mean"], clip=None, subset=np.arange(80) >= 20)
    expected = cells.obsm["generated"][:, 1].mean(axis=(1, 2))
    np.testing.assert_allclose(cells.obs["generated_DAPI_window_mean"][20:], expected[20:])
    assert cells.obs["generated_DAPI_window_mean"][:20].isna().all()  # were of what was there before


@pytest.mark.parametrize("what", ["counts", "crops"])
def test_an_evaluation_is_taken_up_on_the_same_data_alone(cells: ad.AnnData, tmp_path: Path, what: str) -> None:
    options = {
        "model": Model(),
        "features": "pixel-pca",
        "repeats": 1,
        "metrics": ["frechet"],
        "out": tmp_path,
        "method": "mean",
    }
    sst.tl.evaluate(cells, **options)
    sst.tl.evaluate(cells, **options)
    if what == "counts":
        cells.X = cells.X * 3
    else:
        cells.obsm["crops"] = 255 - cells.obsm["crops"]
    with pytest.raises(ValueError, match="holds another evaluation"):
        sst.tl.evaluate(cells, **options)


def test_replay_says_that_crops_have_changed(cells: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    edit(cells, Model("crop"))
    with caplog.at_level(logging.WARNING, logger="sst"):
        sst.tl.replay(cells, model=Model("crop"))
        assert "have changed" not in caplog.text
        cells.obsm["crops"] = 255 - cells.obsm["crops"]
        sst.tl.replay(cells, model=Model("crop"))
        assert "the crops have changed" in caplog.text
        cells.X = cells.X * 2
        sst.tl.replay(cells, model=None)
        assert "the counts have changed" in caplog.text


def test_fidelity_refuses_pictures_of_other_counts(cells: ad.AnnData) -> None:
    truth = cells.obsm["crops"]
    edit(cells, Model())
    cells.X = cells.X * 2
    edit(cells, Model(), key_added="other")
    with pytest.raises(ValueError, match="other counts"):
        sst.tl.fidelity(cells, truth=truth, clip=None)
