"""Xenium bundles: the real ones, and what can go wrong with them."""

from __future__ import annotations

import json
import shutil
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import tifffile

from sst.io.xenium._names import align
from sst.io.xenium._read import stain_names
from sst.pp import read_xenium

if TYPE_CHECKING:
    from pathlib import Path

BREAST, ILEUM = "xenium_breast_v1/outs", "xenium_ileum_tiny/Xenium_Prime_Mouse_Ileum_tiny_outs"
pytestmark = pytest.mark.realdata


@pytest.fixture
def breast(realdata: Path, tmp_path: Path) -> Path:
    shutil.copytree(realdata / BREAST, tmp_path / "outs")
    return tmp_path / "outs"


def test_xoa_1_reads_and_round_trips(realdata: Path, tmp_path: Path) -> None:
    sdata = read_xenium(realdata / BREAST)
    table = sdata["table"]
    assert table.shape == (122, 313)
    assert sdata.attrs["sst"]["pixel_size"] == 0.2125
    image = sdata["morphology_mip"]["scale0"]["image"]
    assert list(image.coords["c"].values) == ["DAPI"]
    np.testing.assert_array_equal(
        image[0].to_numpy(), tifffile.imread(realdata / BREAST / "morphology_mip.ome.tif", key=0)
    )
    raw = pd.read_parquet(realdata / BREAST / "transcripts.parquet")
    assert len(sdata["transcripts"]) == (raw["qv"] >= 20).sum()
    assert len(read_xenium(realdata / BREAST, min_qv=None)["transcripts"]) == len(raw)
    sdata.write(tmp_path / "x.zarr")
    back = sd.read_zarr(tmp_path / "x.zarr")
    assert back.attrs["sst"] == sdata.attrs["sst"]
    assert (back["table"].X != table.X).nnz == 0
    assert len(back["transcripts"]) == len(sdata["transcripts"])


def test_nucleus_centres_are_the_mean_of_the_vertices(realdata: Path) -> None:
    obs = read_xenium(realdata / BREAST)["table"].obs.set_index("cell_id")
    vertices = pd.read_parquet(realdata / BREAST / "nucleus_boundaries.parquet")
    for cell, part in vertices.groupby("cell_id"):
        np.testing.assert_allclose(
            obs.loc[cell, ["x_nucleus_um", "y_nucleus_um"]].astype(float),
            part[["vertex_x", "vertex_y"]].mean(),
            rtol=1e-5,
        )
    assert obs["x_nucleus_um"].isna().sum() == 2


def test_labels_and_transcripts_agree(realdata: Path) -> None:
    sdata = read_xenium(realdata / BREAST)
    points = sdata["transcripts"].compute()
    points = points[points["cell_id"] > 0]
    labels = np.asarray(sdata["cell_labels"]["scale0"]["image"])
    rows, cols = (
        np.floor(points[a] / 0.2125).astype(int).clip(0, n - 1) for a, n in zip("yx", labels.shape, strict=True)
    )
    inside = labels[rows, cols] > 0  # only the 122 kept cells have a label
    assert (labels[rows, cols] == points["cell_id"])[inside].mean() > 0.98


def test_xoa_3_reads_controls_and_clusters(realdata: Path) -> None:
    sdata = read_xenium(realdata / ILEUM)
    table = sdata["table"]
    assert table.shape == (23, 5006)
    assert set(table.var["feature_types"]) == {"Gene Expression"}
    assert not [c for c in table.obs if c.startswith("negative_control")]
    assert {"control_probe_counts", "genomic_control_counts", "unassigned_codeword_counts"} <= set(table.obs)
    clusters = table.obs["gene_expression_kmeans_2_clusters"]
    assert list(clusters.cat.categories) == ["1", "2"]
    assert clusters.isna().sum() == 3
    assert table.obs["cell_id"].iloc[0] == "akkfpngo-1"
    with h5py.File(realdata / ILEUM / "cell_feature_matrix.h5") as file:
        kinds = np.array(file["matrix/features/feature_type"]).astype(str)
        rows = np.array(file["matrix/indices"])
        total = np.array(file["matrix/data"])[kinds[rows] == "Gene Expression"].sum()
    assert table.X.sum() == total


def test_clusters_of_a_folder(breast: Path) -> None:
    folder = breast / "analysis" / "clustering" / "gene_expression_graphclust"
    folder.mkdir(parents=True)
    cells = pd.read_parquet(breast / "cells.parquet")["cell_id"]
    pd.DataFrame({"Barcode": cells[::-1], "Cluster": np.arange(len(cells)) % 11 + 1}).to_csv(
        folder / "clusters.csv", index=False
    )
    obs = read_xenium(breast)["table"].obs
    assert list(obs["gene_expression_graphclust"].cat.categories) == [str(i) for i in range(1, 12)]
    expected = dict(zip(cells[::-1], np.arange(len(cells)) % 11 + 1, strict=True))
    assert [str(expected[c]) for c in obs["cell_id"]] == list(obs["gene_expression_graphclust"])


def test_many_stains_keep_their_names(breast: Path) -> None:
    image = tifffile.imread(breast / "morphology_mip.ome.tif", key=0)
    folder = breast / "morphology_focus"
    folder.mkdir()
    for i in range(4):
        tifffile.imwrite(folder / f"morphology_focus_{i:04d}.ome.tif", image // (i + 1), tile=(128, 128))
    focus = read_xenium(breast)["morphology_focus"]["scale0"]["image"]
    assert list(focus.coords["c"].values) == ["DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin"]
    np.testing.assert_array_equal(focus[2].to_numpy(), image // 3)
    np.testing.assert_array_equal(focus[1, 100:333, 250:300].to_numpy(), image[100:333, 250:300] // 2)


def test_names_of_xoa_4(tmp_path: Path) -> None:
    names = ["DAPI", "CD3 & CD8", "Vimentin"]
    channels = "".join(f'<Channel ID="Channel:{i}" Name="{n.replace("&", "&amp;")}"/>' for i, n in enumerate(names))
    files = [tmp_path / f"ch{i:04d}_s{i}.ome.tif" for i in range(3)]
    for file in files:
        tifffile.imwrite(
            file, np.zeros((64, 64), np.uint16), description=f"<OME><Image>{channels}</Image></OME>", metadata=None
        )
    assert stain_names(files) == names
    assert stain_names(files[:2]) == names[:2]  # the third is missing, the others keep their names
    (tmp_path / "other.ome.tif").write_bytes(files[0].read_bytes())
    with pytest.raises(ValueError, match="chNNNN"):
        stain_names([tmp_path / "other.ome.tif"])


@pytest.mark.parametrize(
    "name", ["experiment.xenium", "cell_feature_matrix.h5", "cells.zarr.zip", "transcripts.parquet"]
)
def test_missing_and_truncated_files_are_named(breast: Path, name: str) -> None:
    data = (breast / name).read_bytes()
    (breast / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read_xenium(breast)
    (breast / name).unlink()
    if name == "cells.zarr.zip":  # labels are not needed
        assert not read_xenium(breast).labels
        return
    with pytest.raises(FileNotFoundError, match=name.replace(".", r"\.")):
        read_xenium(breast)


def test_missing_parts_are_skipped_and_counted(breast: Path) -> None:
    for name in ("nucleus_boundaries.parquet", "morphology_focus.ome.tif"):
        (breast / name).unlink()
    sdata = read_xenium(breast)
    assert "x_nucleus_um" not in sdata["table"].obs
    table = pd.DataFrame(sdata.attrs["sst"]["read"]["table"])
    assert table.query("what == 'nucleus centres'")["status"].tolist() == ["left"]
    assert list(sdata.images) == ["morphology_mip"]


def test_truncated_image_and_duplicate_cells(breast: Path) -> None:
    data = (breast / "morphology_mip.ome.tif").read_bytes()
    (breast / "morphology_mip.ome.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="morphology_mip"):
        read_xenium(breast)
    (breast / "morphology_mip.ome.tif").write_bytes(data)
    cells = pd.read_parquet(breast / "cells.parquet")
    cells.iloc[1, cells.columns.get_loc("cell_id")] = cells["cell_id"].iloc[0]
    cells.to_parquet(breast / "cells.parquet")
    with pytest.raises(ValueError, match=r"cells\.parquet|contradict"):
        read_xenium(breast)


def test_no_pixel_size(breast: Path) -> None:
    (breast / "experiment.xenium").write_text(json.dumps({"analysis_sw_version": "xenium-1.0.1"}))
    with pytest.raises(ValueError, match="pixel_size"):
        read_xenium(breast)


def test_names_of_a_nameless_matrix_are_found(realdata: Path, breast: Path) -> None:
    table = read_xenium(realdata / BREAST)["table"]
    with h5py.File(breast / "cell_feature_matrix.h5") as file:
        assert file["matrix/features/name"][:3].tolist() == [b"0", b"1", b"2"]
        counts = np.zeros((313, 122))
        for i, (a, b) in enumerate(pairwise(file["matrix/indptr"][:])):
            counts[file["matrix/indices"][a:b], i] = file["matrix/data"][a:b]
    np.testing.assert_array_equal(table.X.toarray().T, counts)  # the vendor's counts stay
    raw = pd.read_parquet(realdata / BREAST / "transcripts.parquet")
    raw["gene"] = raw["feature_name"].str.decode("utf-8")
    raw = raw[(raw["qv"] >= 20) & raw["cell_id"].isin(table.obs["cell_id"])]
    mine = pd.crosstab(raw["cell_id"], raw["gene"]).reindex(
        index=table.obs["cell_id"], columns=table.var_names, fill_value=0
    )
    named = ~table.var_names.str.isdigit()
    assert named.sum() == 296
    x = table.X.toarray()[:, named]
    assert (x == mine.loc[:, named].to_numpy()).mean() > 0.97
    assert sorted(table.var_names[named]) == list(table.var_names[named])
    # transcripts of other cells explain nothing
    frame = pd.read_parquet(breast / "transcripts.parquet")
    frame["feature_name"] = np.random.default_rng(0).permutation(frame["feature_name"])
    frame.to_parquet(breast / "transcripts.parquet")
    with pytest.raises(ValueError, match="no gene in common"):
        read_xenium(breast)


def test_alignment_is_the_best_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        matrix = rng.poisson(1.0, (4, 6)).astype(float)
        counts = matrix[:, np.sort(rng.choice(6, 4, replace=False))] + rng.integers(0, 2, (4, 4))

        def cost(at: tuple[int, ...], matrix: np.ndarray = matrix, counts: np.ndarray = counts) -> float:
            rest = [j for j in range(6) if j not in at]
            return float(np.abs(matrix[:, list(at)] - counts).sum() + matrix[:, rest].sum())

        assert cost(tuple(align(matrix, counts))) == min(cost(at) for at in combinations(range(6), 4))
