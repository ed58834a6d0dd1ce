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
