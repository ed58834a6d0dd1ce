"""An object that somebody else wrote: what it says is data, and nothing of it is run, imported or opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import pytest
import spatialdata
from factories import paired_cells, small_gan

import sst
from sst import models

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def edited(tmp_path: Path) -> ad.AnnData:
    adata = paired_cells(60)
    sst.tl.edit(adata, ["g1"], method="mean", model=None)
    adata.write_h5ad(tmp_path / "foreign.h5ad")
    return ad.read_h5ad(tmp_path / "foreign.h5ad")


@pytest.mark.parametrize(
    "query",
    [
        "@adata.obs.to_csv('{path}')",
        "@adata.write_zarr.__globals__['__builtins__']['open']('{path}', 'w')",
        "condition.to_csv('{path}') == 1",
        "condition.map(__import__('os').mkdir('{path}')) == 1",
        "index.to_series().to_csv('{path}')",
    ],
)
@pytest.mark.parametrize("field", ["subset", "fit_subset"])
def test_a_query_in_a_file_runs_nothing(edited: ad.AnnData, tmp_path: Path, query: str, field: str) -> None:
    target = tmp_path / "written"
    edited.uns["edited"]["params"][field] = query.format(path=target)
    with pytest.raises(ValueError, match="not a query"):
        sst.tl.replay(edited)
    assert not target.exists()


@pytest.mark.parametrize("call", ["edit", "morphology", "distances", "confound_report", "write_region"])
def test_a_query_of_a_script_is_read_by_the_same_parser(edited: ad.AnnData, tmp_path: Path, call: str) -> None:
    target = tmp_path / "written"
    options = {"edit": {"method": "mean"}, "write_region": {"adata": edited, "key": "crops"}}.get(call, {})
    first = spatialdata.SpatialData() if call == "write_region" else edited
    with pytest.raises(ValueError, match="not a query"):
        getattr(sst.tl, call)(first, subset=f"condition.to_csv('{target}') == 1", **options)
    assert not target.exists()


@pytest.mark.parametrize(
    "method", ["read_gmt", "rows_of", "take_rows", "FromLayer", "EditStats", "__builtins__", "os.system"]
)
def test_a_record_names_operators_alone(edited: ad.AnnData, method: str) -> None:
    edited.uns["edited"]["params"] |= {"method": method, "method_options": {"path": "/etc/passwd"}}
    with pytest.raises(ValueError, match="of your own"):
        sst.tl.replay(edited)


def test_a_record_gives_operators_their_own_options_alone(edited: ad.AnnData) -> None:
    edited.uns["edited"]["params"] |= {"method": "SCM", "method_options": {"__class__": "x"}}
    with pytest.raises(ValueError, match="'__class__'"):
        sst.tl.replay(edited)


def foreign_model(folder: Path, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> str:
    """Save a model, and forget that it was saved here."""
    small_gan(adata).save(folder)
    monkeypatch.setattr(models._base, "_OWN", set())
    return str(folder.resolve())


@pytest.mark.parametrize("call", ["edit", "generate", "transition", "rank_genes_effect", "name", "replay"])
def test_a_folder_that_a_file_names_is_not_opened(edited: ad.AnnData, tmp_path: Path, call: str, monkeypatch) -> None:
    folder = foreign_model(tmp_path / "theirs", edited, monkeypatch)
    edited.uns["sst"] = {"models": {"gan": folder}, "last": "gan"}
    edited.uns["edited"]["params"] |= {"model_hash": "0", "model_folder": folder}
    function = getattr(sst.tl, "generate" if call == "name" else call)
    with pytest.raises(ValueError, match=r"(?s)file says is not opened unasked.*theirs"):
        function(edited, **({"model": "gan"} if call == "name" else {}))
    # a folder that the user names is
    sst.tl.generate(edited, model=folder)
    sst.tl.generate(edited)


def test_models_of_the_users_own_folder_are_opened(edited: ad.AnnData, tmp_path: Path, monkeypatch) -> None:
    folder = foreign_model(tmp_path / "mine" / "gan", edited, monkeypatch)
    edited.uns["sst"] = {"models": {"gan": folder}, "last": "gan"}
    monkeypatch.setattr(sst.settings, "model_dir", tmp_path / "mine")
    sst.tl.generate(edited)
    edited.uns["sst"] = {"models": {"gan": f"{tmp_path}/mine/../theirs"}, "last": "gan"}
    with pytest.raises(ValueError, match="not opened"):
        sst.tl.generate(edited)


def test_models_that_only_a_file_names_are_left_out(edited: ad.AnnData, tmp_path: Path, caplog, monkeypatch) -> None:
    folder = foreign_model(tmp_path / "theirs", edited, monkeypatch)
    edited.uns["sst"] = {"models": {"gan": folder, "clip": "/etc"}, "last": "gan"}
    with pytest.raises(KeyError, match="no image model"):
        sst.tl.evaluate(edited)
    assert "nobody opened" in caplog.text
    sst.tl.distances(edited, keys=["crops"], n_max=5, repeats=1)  # looks for a CLIP of the object's own


@pytest.mark.parametrize("entry", [3, "x", ["gan"], {"models": "x"}, {"models": ["a"]}])
def test_a_record_of_another_shape_is_named(edited: ad.AnnData, entry: object) -> None:
    edited.uns["sst"] = entry
    with pytest.raises(ValueError, match=r"uns\['sst'\]"):
        sst.tl.generate(edited)
