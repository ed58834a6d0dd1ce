from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from sst.datasets import simulate_tissue

FOUR = ("DAPI", "CD298/B2M", "rRNA", "PanCK")


@pytest.fixture(scope="module")
def tissue():
    return simulate_tissue(n_cells=90, fovs=4, n_genes=24)


@pytest.mark.parametrize(
    ("version", "stains"),
    [("1.0.1", ("DAPI",)), ("1.3.0", ("DAPI",)), ("3.0.0", ("DAPI",)), ("3.0.0", FOUR), ("4.0.0", FOUR)],
)
def test_bundles_are_read_by_spatialdata_io(tissue, tmp_path, version, stains) -> None:
    import spatialdata_io

    path = tissue.write_xenium(tmp_path, version=version, stains=stains)[0]
    with warnings.catch_warnings():
        # The reader warns where masks, ids and tables do not belong together.
        warnings.filterwarnings("error", message=".*cell_id.*")
        warnings.filterwarnings("error", message=".*mapping.*")
        sdata = spatialdata_io.xenium(path)
    side = tissue.config.side
    focus = sdata.images["morphology_focus"]
    image = np.asarray((focus["scale0"]["image"] if hasattr(focus, "keys") else focus).data)
    assert image.shape == (len(stains), 2 * side, 2 * side)
    cells = np.asarray(getattr(sdata.labels["cell_labels"], "data", None))
    if cells.ndim != 2:
        cells = np.asarray(sdata.labels["cell_labels"]["scale0"]["image"].data)
    start = 0
    for fov in range(1, 5):
        view = tissue.draw("normal", fov, channels=stains)
        x, y = (fov - 1) % 2 * side, (fov - 1) // 2 * side
        np.testing.assert_array_equal(image[:, y : y + side, x : x + side], view.images)
        labels = np.where(view.labels > 0, view.labels + start, 0)
        np.testing.assert_array_equal(cells[y : y + side, x : x + side], labels)
        start += len(view.causes)
    table = sdata.tables["table"]
    assert table.shape == (90, 24)
    names = list(table.obs["cell_id"].astype(str))
    truth = pd.read_parquet(tmp_path / "truth.parquet")
    assert [str(c) for c in truth["cell_id"][:90]] == names
    # Counts: good transcripts on the cell's mask.
    points = sdata.points["transcripts"].compute()
    points["cell_id"] = points["cell_id"].map(lambda c: c.decode() if isinstance(c, bytes) else str(c))
    points["feature_name"] = points["feature_name"].map(lambda c: c.decode() if isinstance(c, bytes) else str(c))
    good = points[points["qv"] >= 20]
    again = good.groupby(["cell_id", "feature_name"], observed=True).size().unstack(fill_value=0)
    again = again.reindex(index=names, columns=list(table.var_names), fill_value=0)
    np.testing.assert_array_equal(table.X.toarray(), again.to_numpy())
    um = tissue.config.pixel_size
    at = np.floor(points[["y", "x"]].to_numpy() / um).astype(int)
    index = {name: k + 1 for k, name in enumerate(names)}
    owner = points["cell_id"].map(lambda c: index.get(c, 0)).to_numpy()
    np.testing.assert_array_equal(cells[at[:, 0], at[:, 1]], owner)
    assert (path / "analysis" / "clustering" / "gene_expression_kmeans_2_clusters" / "clusters.csv").is_file()


def test_nuclei_polygons_have_the_nuclei_s_area(tissue, tmp_path) -> None:
    path = tissue.write_xenium(tmp_path)[1]
    rings = pd.read_parquet(path / "nucleus_boundaries.parquet")
    cells = pd.read_parquet(path / "cells.parquet").set_index("cell_id")
    ratio = []
    for name, ring in rings.groupby("cell_id", sort=False):
        x, y = ring["vertex_x"].to_numpy(float), ring["vertex_y"].to_numpy(float)
        assert x[0] == x[-1]
        ratio.append(0.5 * abs(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])) / cells.loc[name, "nucleus_area"])
    assert np.median(ratio) == pytest.approx(1, abs=0.06)
    truth = pd.read_parquet(tmp_path / "truth.parquet").iloc[90:]
    np.testing.assert_allclose(np.median(cells["nucleus_area"] / truth["nucleus_area"].to_numpy()), 1, atol=0.02)


def test_read_xenium_pairs_the_same_cells(tissue, tmp_path) -> None:
    import sst

    path = tissue.write_xenium(tmp_path)[1]
    paired = sst.pp.crop_cells(sst.pp.read_xenium(path), size=64, output_size=32, center="cell")
    expected = tissue.to_adata(channels=["DAPI"], min_qv=20)
    expected = expected[expected.obs["condition"] == "tumor"]
    truth = pd.read_parquet(tmp_path / "truth.parquet")
    names = truth.loc[expected.obs_names, "cell_id"].to_numpy()
    found = np.isin(names, paired.obs_names)
    # Cells near the rim may be dropped: the transcripts' area ends a little before the picture does.
    assert found.mean() > 0.7
    paired = paired[names[found], expected.var_names]
    np.testing.assert_array_equal(np.asarray(paired.obsm["crops"]), expected.obsm["crops"][found])
    np.testing.assert_array_equal(paired.X.toarray(), expected.X.toarray()[found])


def test_cell_names_are_unique() -> None:
    from sst.datasets.simulator.write_xenium._write import cell_names

    prefix, names = cell_names(100_000)
    assert len(set(names)) == 100_000
    assert all(len(n) == 10 for n in names[:100])
    digits = "".join(chr(ord("a") + int(d, 16)) for d in f"{prefix[7]:08x}")
    assert names[7] == digits + "-1"


def test_errors_name_the_options(tissue, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"version='5'.*1\.3\.0"):
        tissue.write_xenium(tmp_path, version="5")
    with pytest.raises(ValueError, match=r"stain='GFP'.*DAPI"):
        tissue.write_xenium(tmp_path, stains=("GFP",))
    with pytest.raises(ValueError, match="version 1.3.0 has"):
        tissue.write_xenium(tmp_path, stains=FOUR)
