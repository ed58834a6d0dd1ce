"""Simulated slides, written in every vendor layout and read back to the same cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from sst.datasets import simulate_tissue
from sst.pp import crop_cells, read_cosmx, read_xenium

if TYPE_CHECKING:
    from pathlib import Path

    import spatialdata as sd

    from sst.datasets import Tissue


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return simulate_tissue(n_cells=60, n_genes=18, fovs=3, seed=3)


def check(sdata: sd.SpatialData, tissue: Tissue, group: str) -> None:
    """Centres, transcripts, pixels and counts are the simulator's own."""
    table = sdata["table"]
    causes = tissue.causes[tissue.causes["group"] == group].sort_values(["fov", "cell"])
    order = table.obs.reset_index(drop=True).sort_values(["fov", "label"]).index
    obs = table.obs.iloc[order]
    np.testing.assert_array_equal(obs["label"], causes["cell"])
    np.testing.assert_allclose(obs[["x_px", "y_px"]], np.floor(causes[["x", "y"]]), atol=1e-3)
    genes = list(tissue.genes.index)
    assert sorted(table.var_names) == sorted(genes)
    for fov in (1, 3):
        key = f"F{fov:03d}"
        view = tissue.draw(group, fov)
        np.testing.assert_array_equal(sdata[f"{key}_image"].to_numpy(), view.images)
        np.testing.assert_array_equal(sdata[f"{key}_labels"].to_numpy(), view.labels)
        t = view.transcripts
        mine = pd.DataFrame({"x": t["x"], "y": t["y"], "gene": np.array(genes)[t["gene"]], "cell_id": t["cell"]})
        points = sdata[f"{key}_points"].compute()
        points = points[points["gene"].isin(genes)].astype({"gene": str})
        mine, points = (f.sort_values(["x", "y"], ignore_index=True) for f in (mine, points[list(mine)]))
        np.testing.assert_allclose(points[["x", "y"]], mine[["x", "y"]], atol=2e-3)
        on = (t["cell"] > 0).sum()
        assert (points["cell_id"] > 0).sum() == on
        assert sorted(points["gene"]) == sorted(mine["gene"])
        assert table.X[(table.obs["fov"] == key).to_numpy()].sum() == on


@pytest.mark.parametrize("layout", ["flat", "atomx", "release"])
@pytest.mark.parametrize("up", [True, False])
def test_cosmx_layouts(tmp_path: Path, tissue: Tissue, layout: str, up: bool) -> None:
    if layout == "release":
        pytest.importorskip("tiledb")
    positions = "mm" if layout == "atomx" and up else "both"
    paths = tissue.write_cosmx(tmp_path, layout=layout, y_up=up, positions=positions, zipped=layout == "release" and up)
    for slide, (path, group) in enumerate(zip(paths, tissue.config.groups, strict=True), start=1):
        extra = {"tiledb": tmp_path / "LiverDataReleaseTileDB", "slide": slide} if layout == "release" else {}
        sdata = read_cosmx(path, **extra)
        said = sdata.attrs["sst"]["read"]
        assert said["layout"] == {"release": "tiledb"}.get(layout, layout)
        assert said["y_axis"] == ("up" if up else "down")
        assert min(said["agreement"].values()) == 1.0
        assert sdata.attrs["sst"]["pixel_size"] == pytest.approx(tissue.config.pixel_size)
        check(sdata, tissue, group)


@pytest.mark.parametrize(("version", "kit"), [("1.0.1", 1), ("1.3.0", 1), ("3.0.0", 1), ("3.0.0", 4), ("4.0.0", 4)])
def test_xenium_versions(tmp_path: Path, tissue: Tissue, version: str, kit: int) -> None:
    stains = ("DAPI", "CD298/B2M", "rRNA", "PanCK")[:kit]
    for folder, group in zip(
        tissue.write_xenium(tmp_path, version=version, stains=stains), tissue.config.groups, strict=True
    ):
        sdata = read_xenium(folder)
        table = sdata["table"]
        causes = tissue.causes[tissue.causes["group"] == group]
        assert table.n_obs == len(causes)
        assert sorted(table.var_names) == sorted(tissue.genes.index)
        image = sdata["morphology_focus"]["scale0"]["image"]
        names = [str(n) for n in image.coords["c"].values]
        assert len(set(names)) == kit
        assert names[0] == "DAPI"
        pixel_size = sdata.attrs["sst"]["pixel_size"]
        assert pixel_size == pytest.approx(tissue.config.pixel_size)
        centres = table.obs[["x_nucleus_um", "y_nucleus_um"]].to_numpy() / pixel_size
        assert np.isfinite(centres).all(axis=1).mean() > 0.9
        nuclei = np.asarray(sdata["nucleus_labels"]["scale0"]["image"])
        cells = np.asarray(sdata["cell_labels"]["scale0"]["image"])
        at = np.floor(centres[np.isfinite(centres).all(axis=1)]).astype(int)
        assert (nuclei[at[:, 1], at[:, 0]] > 0).mean() > 0.95
        points = sdata["transcripts"].compute()
        rows, cols = (
            np.floor(points[a] / pixel_size).astype(int).clip(0, n - 1) for a, n in zip("yx", cells.shape, strict=True)
        )
        genes = points[points["feature_name"].isin(table.var_names)]
        assert (points["qv"] >= 20).all()
        free = genes["cell_id"].isin([-1, 0, "UNASSIGNED", "-1"])
        assert table.X.sum() == (~free).sum()
        assert ((cells[rows, cols] > 0) == ~points["cell_id"].isin([-1, 0, "UNASSIGNED", "-1"])).mean() > 0.97
        clusters = table.obs["gene_expression_kmeans_2_clusters"].astype(str)
        assert set(clusters) == {"1", "2"}


def test_a_slide_is_called_as_its_folder(tmp_path: Path) -> None:
    from sst.io._slide_name import slide_name

    assert slide_name(tmp_path / "NormalLiver.zip") == "NormalLiver"
    assert slide_name(tmp_path / "lung" / "outs") == "lung"
    tissue = simulate_tissue(n_cells=12, n_genes=16, fovs=1, seed=0)
    (normal, _) = tissue.write_cosmx(tmp_path)
    sdata = read_cosmx(normal)
    assert sdata.attrs["sst"]["sample"] == "normal"
    assert set(crop_cells(sdata, size=32, output_size=32, pad=True).obs["sample"]) == {"normal"}


def test_the_other_vendors_reader_is_named(tmp_path: Path, tissue: Tissue) -> None:
    cosmx, xenium = tissue.write_cosmx(tmp_path / "c")[0], tissue.write_xenium(tmp_path / "x")[0]
    with pytest.raises(FileNotFoundError, match="sst.pp.read_cosmx"):
        read_xenium(cosmx)
    with pytest.raises(FileNotFoundError, match="sst.pp.read_xenium"):
        read_cosmx(xenium)
