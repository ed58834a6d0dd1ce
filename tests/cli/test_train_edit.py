from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest

import sst
from sst.cli import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared object on disk: rescaled, split, both groups."""
    adata = sst.datasets.simulate_tissue(n_cells=60, n_genes=20, fovs=3, seed=1).to_adata()
    sst.pp.rescale_intensity(adata, groupby="condition")
    sst.pp.train_test_split(adata, by="fov", seed=0)
    path = tmp_path_factory.mktemp("object") / "cells.h5ad"
    adata.write_h5ad(path)
    return path


def test_train_then_edit(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "gan", tmp_path / "edited.zarr"
    train = ["--quiet", "train", "gan", str(prepared), "--out", str(model), "--preset", "demo", "--iterations", "1"]
    assert run(train) == 0
    assert {"config.json", "weights.safetensors", "registry.json"} <= {p.name for p in model.iterdir()}

    edit = ["--quiet", "edit", str(prepared), "--model", str(model), "--genes", "B2M", "HLA-A", "--out", str(out)]
    assert run([*edit, "--source", "tumor", "--target", "normal", "--method", "ot"]) == 0
    edited = ad.read_zarr(out)
    tumor = (edited.obs["condition"] == "tumor").to_numpy()
    changed = np.abs((edited.layers["edited"] - edited.X).toarray()).sum(axis=1) > 0
    assert changed[tumor].all()
    assert not changed[~tumor].any()
    assert edited.obsm["edited"].shape == edited.obsm["crops"].shape
    assert "edited_nucleus_area" in edited.obs

    assert run(edit) == 2  # never overwritten
    assert "exists already" in capsys.readouterr().err
    assert run([*edit[:-1], str(tmp_path / "b.zarr"), "--genes", "B2MM"]) == 2
    assert "B2M" in capsys.readouterr().err


def test_expression_alone_needs_no_model(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "edited.h5ad"
    assert run(["--quiet", "edit", str(prepared), "--groupby", "condition", "--out", str(out)]) == 0
    edited = ad.read_h5ad(out)
    assert "edited" in edited.layers
    assert "edited" not in edited.obsm


def test_inversion_asks_for_its_parts(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--quiet", "train", "inversion", str(prepared), "--out", str(tmp_path / "inv")]) == 2
    assert "--gan FOLDER" in capsys.readouterr().err


def test_plans_are_said_and_nothing_is_done(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sst.cli._plan._LEAST", 0.0)
    monkeypatch.setattr("sst.cli._train._ITERATIONS", 2)
    model, out = tmp_path / "editor", tmp_path / "out"
    train = ["--quiet", "train", "editor", str(prepared), "--out", str(model), "--preset", "demo"]
    cells = ad.read_h5ad(prepared, backed="r")
    assert run([*train, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"cells: {cells.n_obs} (" in said
    assert "2,000 iterations of 24 cells" in said
    assert "s an iteration (of 2 tried, cpu)" in said
    assert not model.exists()
    assert run([*train, "--iterations", "1"]) == 0

    edit = ["--quiet", "edit", str(prepared), "--out", str(out), "--genes", "B2M", "--dry-run"]
    tumor = int((cells.obs["condition"] == "tumor").sum())
    assert run([*edit, "--model", str(model), "--subset", "condition == 'tumor'"]) == 0
    said = capsys.readouterr().out
    assert f"cells: {tumor} of {cells.n_obs} (tumor -> normal), 1 genes" in said
    assert f"pictures: {tumor} of 2 x 32 x 32, {tumor * 2048 / 1000:.3g} kB, in memory" in said
    assert "cells a second" in said
    assert run([*edit, "--groupby", "condition"]) == 0
    assert "time: not known" in capsys.readouterr().out

    assert run(["--quiet", "evaluate", str(prepared), "--model", str(model), "--out", str(out), "--dry-run"]) == 0
    assert "conditions: 2 (this_cell-none-all, this_cell-all-all)" in capsys.readouterr().out
    assert (
        run(["--quiet", "benchmark", "--methods", "ridge", "gan", "--minutes", "2", "--out", str(out), "--dry-run"])
        == 0
    )
    assert "training 8 min at most" in capsys.readouterr().out
    assert not out.exists()


def test_generate_from_training_cells(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "editor", tmp_path / "drawn.h5ad"
    train = ["--quiet", "train", "editor", str(prepared), "--out", str(model), "--preset", "demo", "--iterations", "1"]
    assert run(train) == 0
    draw = ["--quiet", "generate", str(prepared), "--model", str(model), "--sources", "train", "--out"]
    assert run([*draw, str(out)]) == 0
    drawn = ad.read_h5ad(out)
    assert drawn.obsm["generated"].shape == drawn.obsm["crops"].shape
    assert (drawn.obs.loc[drawn.obs["generated_source"], "split"] == "train").all()
    assert "generated_nucleus_area" in drawn.obs

    three = ["--sources", str(prepared), "--neighbors", "4", "--n-samples", "3"]
    assert run([*draw, str(tmp_path / "three.h5ad"), *three]) == 0
    assert ad.read_h5ad(tmp_path / "three.h5ad").obsm["generated"].shape[1] == 3
    assert run([*draw, str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_slides_are_kept_apart(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "editor", tmp_path / "edited.h5ad"
    study = ad.read_h5ad(prepared)
    study.obs["donor"] = [f"{g}{k}" for k, g in zip(np.arange(study.n_obs) % 2, study.obs["condition"], strict=True)]
    study.write_h5ad(tmp_path / "study.h5ad")
    train = ["--quiet", "train", "editor", str(tmp_path / "study.h5ad"), "--out", str(model), "--preset", "demo"]
    assert run([*train, "--iterations", "1", "--batch-key", "donor"]) == 0
    assert sst.models.load(model).registry.slides == ("normal0", "normal1", "tumor0", "tumor1")
    edit = ["--quiet", "edit", str(tmp_path / "study.h5ad"), "--groupby", "condition", "--out", str(out)]
    assert run([*edit, "--batch-key", "donor"]) == 0
    assert len(ad.read_h5ad(out).uns["edited"]["report"]["batches"]) == 4
    assert run([*edit[:-1], str(tmp_path / "b.h5ad"), "--batch-key", "slide"]) == 2
    assert "batch_key='slide'" in capsys.readouterr().err
