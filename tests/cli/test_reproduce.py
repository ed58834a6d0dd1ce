"""The experiments end to end, on a miniature in the releases' own layouts."""

from __future__ import annotations

import json

import matplotlib as mpl
import pandas as pd
import pytest

import sst
from sst.cli import run
from sst.cli._studies import STUDIES

mpl.use("Agg")
SMALL = [
    "--preset",
    "demo",
    "--iterations",
    "2",
    "--output-size",
    "16",
    "--border",
    "0",
    "--repeats",
    "2",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def liver(tmp_path_factory):
    """Both slides' pictures in zips and one TileDB group, named as they are downloaded."""
    pytest.importorskip("tiledb")
    data = tmp_path_factory.mktemp("liver")
    tissue = sst.datasets.simulate_tissue(n_cells=150, n_genes=24, fovs=3, seed=2)
    normal, tumor = tissue.write_cosmx(data, layout="release", zipped=True)
    normal.rename(data / "NormalLiverFiles.zip")
    tumor.rename(data / "LiverCancerFiles.zip")
    return data


@pytest.fixture(scope="module")
def lung(tmp_path_factory):
    data = tmp_path_factory.mktemp("lung")
    tissue = sst.datasets.simulate_tissue(n_cells=120, n_genes=24, fovs=4, seed=3)
    folders = tissue.write_xenium(data, version="1.3.0")
    for folder, slide in zip(folders, ("normal", "tumor"), strict=True):
        folder.rename(data / STUDIES["xenium-lung"].inputs[slide][0])
    return data


@pytest.mark.slow
def test_liver_to_the_last_figure(liver, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["--quiet", "reproduce", "cosmx-liver", "--data", str(liver), "--out", str(out), "--size", "64", *SMALL]
    assert run(args) == 0
    for stage in ("prepare", "gan", "clip", "inversion", "evaluate"):
        assert json.loads((out / f"{stage}.json").read_text())["seconds"] > 0
    table = pd.read_csv(out / "evaluation" / "distances.csv")
    after = table[table["role"] == "after"][["images", "edit", "cells"]].drop_duplicates()
    assert len(after) == 8  # the paper's conditions, the subtype included
    assert table["features"].str.startswith("clip").all()
    assert len(pd.read_csv(out / "evaluation" / "reconstruction.csv")) > 0
    report = (out / "evaluation" / "report.html").read_text()
    assert "inversion: perceptual loss" in report
    assert "features of the own CLIP image tower, in place of LPIPS" in report
    assert "cosmx-liver" in report
    names = {p.name for p in (out / "evaluation" / "figures").glob("*.pdf")}
    assert {"distances-1.pdf", "what-changed-1.pdf", "training-gan.pdf", "training-inversion.pdf"} <= names
    adata = sst.io.open_store(out / "prepared.zarr")
    assert list(adata.uns["crops"]["channels"]) == ["CD298/B2M", "DAPI"]
    assert set(adata.obs["split"]) >= {"train", "test"}
    before = {p: p.stat().st_mtime_ns for p in out.glob("*.json")}
    assert run(args) == 0  # everything is done: nothing happens again
    assert {p: p.stat().st_mtime_ns for p in out.glob("*.json")} == before
    assert "prepare      done" in capsys.readouterr().out
    assert run([*args, "--seed", "1"]) == 2
    assert "holds another experiment (seed: 0 before, 1 now)" in capsys.readouterr().err


@pytest.mark.slow
def test_lung_stage_by_stage(lung, tmp_path, capsys):
    out = tmp_path / "out"
    args = [
        "--quiet",
        "reproduce",
        "xenium-lung",
        "--data",
        str(lung),
        "--out",
        str(out),
        "--size",
        "64",
        "--tile-size",
        "200",
    ]
    args += SMALL
    assert run([*args, "--stage", "gan"]) == 2
    assert "needs ['prepare'] to be done first" in capsys.readouterr().err
    assert run([*args, "--stage", "prepare"]) == 0
    adata = sst.io.open_store(out / "prepared.zarr")
    assert adata.obsm["crops"].shape[1:] == (1, 16, 16)
    assert adata.uns["crops"]["params"]["assigned_only"]
    assert run([*args, "--stage", "gan", "--stage", "clip", "--stage", "evaluate"]) == 2
    assert "name others with --genes" in capsys.readouterr().err
    assert run([*args, "--stage", "evaluate", "--genes", "HLA-A", "--features", "pixel-pca"]) == 0
    table = pd.read_csv(out / "evaluation" / "distances.csv")
    assert set(table["images"]) == {"generated"}
    assert (out / "evaluation" / "report.html").exists()


def test_plan_says_what_it_takes_and_does_nothing(liver, tmp_path, capsys):
    out = tmp_path / "never"
    assert run(["reproduce", "cosmx-liver", "--data", str(liver), "--out", str(out), "--plan"]) == 0
    text = capsys.readouterr().out
    for word in ("prepare", "800,000 iterations", "disk", "memory", "free"):
        assert word in text
    assert not out.exists()


def test_missing_files_are_named(tmp_path, capsys):
    assert run(["reproduce", "xenium-lung", "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "tumor (Xenium_Preview_Human_Lung_Cancer" in error
    assert "sst.datasets.xenium_lung() downloads them" in error
