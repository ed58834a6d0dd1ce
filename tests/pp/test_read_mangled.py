"""Exports as they come: the simulator's own, mangled one thing at a time."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

import sst
from sst.datasets import simulate_tissue
from sst.pp import crop_cells, read_cosmx, read_xenium

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tissue = simulate_tissue(n_cells=40, n_genes=16, fovs=2, seed=1)
    root = tmp_path_factory.mktemp("exports")
    return {
        "cosmx": tissue.write_cosmx(root / "c", layout="flat")[0],
        "xenium": tissue.write_xenium(root / "x", version="3.0.0")[0],
    }


@pytest.fixture
def cosmx(exports: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(exports["cosmx"], tmp_path / "slide")


@pytest.fixture
def xenium(exports: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(exports["xenium"], tmp_path / "bundle")


def table(folder: Path, kind: str) -> Path:
    return next(folder.glob(f"*{kind}*.csv*"))


def change(folder: Path, kind: str, how, **more) -> None:
    file = table(folder, kind)
    how(pd.read_csv(file)).to_csv(file, index=False, **more)


def same(sdata, whole) -> None:
    a, b = sdata["table"], whole["table"]
    assert list(a.obs_names) == list(b.obs_names)
    assert list(a.var_names) == list(b.var_names)
    assert (a.X != b.X).nnz == 0
    np.testing.assert_allclose(a.obsm["spatial"], b.obsm["spatial"])
    assert sdata.attrs["sst"]["pixel_size"] == whole.attrs["sst"]["pixel_size"]
    for name in whole.points:
        assert len(sdata.points[name]) == len(whole.points[name])


def test_columns_that_are_no_genes(cosmx: Path, exports) -> None:
    whole = read_cosmx(exports["cosmx"])
    change(cosmx, "exprMat", lambda t: t.assign(slide_ID=1, Panel="6k"))
    file = table(cosmx, "exprMat")
    pd.read_csv(file).to_csv(file, index=True)  # row names under no name
    same(read_cosmx(cosmx), whole)


def test_every_row_twice(cosmx: Path, xenium: Path, exports) -> None:
    for kind in ("exprMat", "metadata", "_tx"):
        change(cosmx, kind, lambda t: pd.concat([t, t]))
    sdata = read_cosmx(cosmx)
    same(sdata, read_cosmx(exports["cosmx"]))
    assert "the same row was there before" in sdata.attrs["sst"]["read"]["table"]["why"]
    rows = pd.read_parquet(xenium / "transcripts.parquet")
    pd.concat([rows, rows]).to_parquet(xenium / "transcripts.parquet", index=False)
    assert len(read_xenium(xenium)["transcripts"]) == len(read_xenium(exports["xenium"])["transcripts"])


@pytest.mark.parametrize("kind", ["exprMat", "metadata", "_tx", "positions"])
def test_packing_a_table_changes_nothing(cosmx: Path, exports, kind: str) -> None:
    file = table(cosmx, kind)
    (file.parent / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    same(read_cosmx(cosmx), read_cosmx(exports["cosmx"]))


def test_names_that_lie_about_packing(cosmx: Path, exports) -> None:
    for kind in ("exprMat", "_tx"):
        file = table(cosmx, kind)
        file.rename(file.with_name(f"{file.name}.gz"))
    file = table(cosmx, "metadata")
    file.write_bytes(gzip.compress(file.read_bytes()))
    same(read_cosmx(cosmx), read_cosmx(exports["cosmx"]))


def test_latin_1(cosmx: Path, exports) -> None:
    change(cosmx, "metadata", lambda t: t.assign(note="Zürich, 5 µm"), encoding="latin1")
    sdata = read_cosmx(cosmx)
    same(sdata, read_cosmx(exports["cosmx"]))
    assert set(sdata["table"].obs["note"]) == {"Zürich, 5 µm"}


def test_two_slides_in_a_table(cosmx: Path, exports) -> None:
    for kind in ("exprMat", "metadata", "_tx"):
        change(cosmx, kind, lambda t: pd.concat([t.assign(slide_ID=1), t.assign(slide_ID=2).iloc[::-1]]))
    with pytest.raises(ValueError, match=r"slides \[1, 2\] \(column 'slide_ID'\): choose with slide="):
        read_cosmx(cosmx)
    same(read_cosmx(cosmx, slide=1), read_cosmx(exports["cosmx"]))
    with pytest.raises(KeyError, match="slide=3"):
        read_cosmx(cosmx, slide=3)


def test_ome_tif_stains(cosmx: Path, exports) -> None:
    for file in cosmx.rglob("Morphology2D/*.TIF"):
        file.rename(file.with_name(f"{file.stem}.ome.tif"))
    same(read_cosmx(cosmx), read_cosmx(exports["cosmx"]))


def test_metadata_cut_in_the_middle_of_a_line(cosmx: Path) -> None:
    file = table(cosmx, "metadata")
    text = file.read_text()
    at = text.rfind(",", 0, len(text) // 2)
    for end in (at - 3, text.rfind("\n", 0, at) - 1):  # too few columns; a shorter last value
        file.write_text(text[:end])
        with pytest.raises(ValueError, match="truncated"):
            read_cosmx(cosmx)


@pytest.mark.parametrize(("value", "named"), [(1e10, "1e+10|10000000000"), (0.5, "0.5"), (-1, "-1"), (np.nan, "nan")])
def test_counts_that_are_none(cosmx: Path, value: float, named: str) -> None:
    def spoil(t: pd.DataFrame) -> pd.DataFrame:
        t = t.astype({t.columns[5]: float})
        t.iloc[3, 5] = value
        return t

    column = pd.read_csv(table(cosmx, "exprMat"), nrows=1).columns[5]
    change(cosmx, "exprMat", spoil)
    with pytest.raises(ValueError, match=rf"exprMat.*row 4 has .*({named}).*{column}"):
        read_cosmx(cosmx)


def test_a_long_matrix_is_named(cosmx: Path) -> None:
    change(
        cosmx,
        "exprMat",
        lambda t: t.melt(["fov", "cell_ID"], var_name="target", value_name="count"),
    )
    with pytest.raises(ValueError, match="no matrix of cells x targets"):
        read_cosmx(cosmx)


def test_a_table_that_unpacks_beyond_measure(cosmx: Path) -> None:
    file = table(cosmx, "metadata")
    with gzip.open(file.with_name(f"{file.name}.gz"), "wb", compresslevel=9) as out:
        out.write(file.read_bytes())
        for _ in range(300):
            out.write(b"\n" * (1 << 20))
    file.unlink()
    with pytest.raises(ValueError, match="unpacks to more than 500 times"):
        read_cosmx(cosmx)


def test_a_picture_that_unpacks_beyond_measure(tmp_path: Path) -> None:
    from sst.io._raster import RasterError, RasterFile, raster_info

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("Morphology2D/x_F001.TIF", bytes(300 << 20))
    with pytest.raises(RasterError, match="unpacks from"):
        raster_info(RasterFile(str(tmp_path / "a.zip"), "Morphology2D/x_F001.TIF"))


def test_positions_without_fov_or_with_holes(cosmx: Path, exports) -> None:
    whole = read_cosmx(exports["cosmx"])
    change(cosmx, "positions", lambda t: t.drop(columns="fov"))
    same(read_cosmx(cosmx), whole)
    shutil.copy(table(exports["cosmx"], "positions"), table(cosmx, "positions"))
    change(cosmx, "positions", lambda t: t.assign(x_global_px=np.nan, x_global_mm=np.nan))
    sdata = read_cosmx(cosmx)
    assert "no FOV or no position" in sdata.attrs["sst"]["read"]["table"]["why"]


def test_a_fov_far_away(cosmx: Path, exports) -> None:
    """A phantom field of view 50 mm away, in the positions file alone."""

    def phantom(t: pd.DataFrame) -> pd.DataFrame:
        away = {f"x_global_{unit}": t.iloc[0][f"x_global_{unit}"] + n for unit, n in (("mm", 50), ("px", 50_000 / 0.3))}
        return pd.concat([t, t.iloc[:1].assign(fov=99, **away)])

    change(cosmx, "positions", phantom)
    sdata, whole = read_cosmx(cosmx, stitch=True), read_cosmx(exports["cosmx"], stitch=True)
    assert sdata["image"].shape == whole["image"].shape
    same(sdata, whole)


def test_truncated_pictures_are_left_and_named(cosmx: Path) -> None:
    import imageio.v3 as iio

    folder = cosmx / "CellComposite"
    folder.mkdir()
    for fov in (1, 2):
        size = tifffile.imread(next(cosmx.rglob(f"CellLabels_F{fov:03d}.tif"))).shape
        iio.imwrite(
            folder / f"CellComposite_F{fov:03d}.jpg", np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
        )
    file = folder / "CellComposite_F002.jpg"
    file.write_bytes(file.read_bytes()[:-2000])
    sdata = read_cosmx(cosmx, image="composite")
    assert list(sdata.images) == ["F001_image"]
    assert any("CellComposite_F002.jpg is truncated" in why for why in sdata.attrs["sst"]["read"]["table"]["why"])


def test_fewer_stains(cosmx: Path) -> None:
    for file in cosmx.rglob("Morphology2D/*.TIF"):
        pages = tifffile.imread(file)[[0, 4]]
        note = json.dumps({"ChannelOrder": "BU"})
        with tifffile.TiffWriter(file) as tif:
            for i, page in enumerate(pages):
                tif.write(page, photometric="minisblack", description=note if not i else None, metadata=None)
    sdata = read_cosmx(cosmx)
    assert [str(c) for c in sdata["F001_image"].coords["c"].values] == ["B", "DAPI"]


def test_transcripts_at_the_edge(cosmx: Path) -> None:
    def to_edge(t: pd.DataFrame) -> pd.DataFrame:
        t.loc[t.index[:5], "x_local_px"] = 246.0
        return t

    change(cosmx, "_tx", to_edge)
    adata = crop_cells(read_cosmx(cosmx), size=24, output_size=24, pad=True)
    assert adata.X.sum() > 0


def test_self_crossing_polygons(cosmx: Path) -> None:
    change(
        cosmx, "polygons", lambda t: t.sample(frac=1, random_state=0).sort_values(list(t.columns[:2]), kind="stable")
    )
    sdata = read_cosmx(cosmx)
    crop_cells(sdata, size=24, output_size=24)
    assert len(sdata["F001_polygons"]) > 10


# ---- Xenium


def test_a_bundle_without_labels(xenium: Path, exports) -> None:
    whole = crop_cells(read_xenium(exports["xenium"]), size=24, output_size=24)
    (xenium / "cells.zarr.zip").unlink()
    sdata = read_xenium(xenium)
    assert "no cells.zarr.zip" in sdata.attrs["sst"]["read"]["table"]["why"]
    adata = crop_cells(sdata, size=24, output_size=24)
    assert list(adata.obs_names) == list(whole.obs_names)
    np.testing.assert_array_equal(adata.obsm["crops"], whole.obsm["crops"])
    assert (adata.X != whole.X).nnz == 0


def test_one_set_of_masks(xenium: Path) -> None:
    file = xenium / "cells.zarr.zip"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(xenium / "new.zip", "w") as new:
        for name in old.namelist():
            if "masks/0" not in name:
                new.writestr(name, old.read(name))
    (xenium / "new.zip").replace(file)
    sdata = read_xenium(xenium)
    assert any("mask sets ['1']" in why for why in sdata.attrs["sst"]["read"]["table"]["why"])
    assert crop_cells(sdata, size=24, output_size=24).n_obs > 10


@pytest.mark.parametrize("name", ["nucleus_boundaries", "cell_boundaries", "transcripts"])
def test_empty_tables(xenium: Path, name: str) -> None:
    file = xenium / f"{name}.parquet"
    pd.read_parquet(file).iloc[:0].to_parquet(file, index=False)
    sdata = read_xenium(xenium)
    assert sdata["table"].n_obs == 40
    if name == "transcripts":
        assert crop_cells(sdata, size=24, output_size=24, expression="cell").n_obs > 10
        with pytest.raises(KeyError, match="no points"):
            crop_cells(sdata, size=24)
    else:
        assert crop_cells(sdata, size=24, output_size=24).n_obs > 10


@pytest.mark.parametrize("order", ["fewer", "other"])
def test_rows_of_cells(xenium: Path, exports, order: str) -> None:
    whole = crop_cells(read_xenium(exports["xenium"]), size=24, output_size=24)
    file = xenium / "cells.parquet"
    rows = pd.read_parquet(file)
    (rows.iloc[3:] if order == "fewer" else rows.iloc[::-1]).to_parquet(file, index=False)
    sdata = read_xenium(xenium)
    assert sdata["table"].n_obs == (37 if order == "fewer" else 40)
    adata = crop_cells(sdata, size=24, output_size=24)
    there = whole[adata.obs_names]
    np.testing.assert_array_equal(adata.obsm["crops"], there.obsm["crops"])
    assert (adata.X != there.X).nnz == 0
    assert (adata.layers["segmented"] != there.layers["segmented"]).nnz == 0


def test_an_aligned_image_of_many_channels_and_a_stack(xenium: Path) -> None:
    whole = list(read_xenium(xenium).images)
    tifffile.imwrite(xenium / "he_image.ome.tif", np.zeros((20, 64, 64), np.uint16), ome=True, metadata={"axes": "CYX"})
    tifffile.imwrite(xenium / "morphology.ome.tif", np.zeros((5, 64, 64), np.uint16))
    sdata = read_xenium(xenium)
    assert list(sdata.images) == whole
    assert "aligned images" in sdata.attrs["sst"]["read"]["table"]["what"]


def test_two_nuclei_a_cell(xenium: Path) -> None:
    """The larger counts, by the vendor's table and by the shapes alike."""
    cells = read_xenium(xenium)["table"].obs.set_index("cell_id")
    file = xenium / "nucleus_boundaries.parquet"
    rows = pd.read_parquet(file)
    own = rows[rows["label_id"] == rows["label_id"].iloc[0]]
    middle = own[["vertex_x", "vertex_y"]].mean()
    small = own.assign(label_id=rows["label_id"].max() + 1)
    small[["vertex_x", "vertex_y"]] = (own[["vertex_x", "vertex_y"]] - middle) * 0.4 + middle + 4
    pd.concat([small, rows]).to_parquet(file, index=False)
    sdata = read_xenium(xenium)
    again = sdata["table"].obs.set_index("cell_id")
    columns = ["x_nucleus_um", "y_nucleus_um"]
    np.testing.assert_allclose(again[columns], cells.loc[again.index, columns])
    assert any("do not fit the labels" in why for why in sdata.attrs["sst"]["read"]["table"]["why"])
    assert crop_cells(sdata, size=24, output_size=24).n_obs > 10


def test_nuclei_by_shapes_are_those_of_their_cells(exports) -> None:
    """Shapes of nuclei are numbered by nucleus; of two in a cell the larger counts."""
    import geopandas as gpd
    import shapely

    from sst.io.crops._evidence import vertex_means

    sdata = read_xenium(exports["xenium"])
    read = crop_cells(sdata, size=24, output_size=24, pad=True)
    sdata["table"].obs = sdata["table"].obs.drop(columns=["x_nucleus_um", "y_nucleus_um"])
    by_shapes = crop_cells(sdata, size=24, output_size=24, pad=True)
    assert "nucleus_boundaries" in by_shapes.uns["crops"]["params"]["centres"]
    away = np.abs(by_shapes.obsm["spatial_px"] - read[by_shapes.obs_names].obsm["spatial_px"]).max(axis=1)
    assert away.max() < 2
    boxes = shapely.box([0, 10, 50], [0, 10, 50], [2, 16, 60], [2, 16, 60])
    means = vertex_means(gpd.GeoDataFrame({"cell_id": ["a", "a", "b"]}, geometry=boxes, index=[7, 8, 9]))
    assert means.loc["a"].tolist() == [13, 13]
    assert means.loc["b"].tolist() == [55, 55]


def test_no_quality_and_no_pixel_size(xenium: Path) -> None:
    file = xenium / "transcripts.parquet"
    pd.read_parquet(file).drop(columns="qv").to_parquet(file, index=False)
    with pytest.raises(ValueError, match=r"transcripts\.parquet has no column 'qv'"):
        read_xenium(xenium)
    assert crop_cells(read_xenium(xenium, min_qv=None), size=24, output_size=24).n_obs > 10
    about = json.loads((xenium / "experiment.xenium").read_text())
    (xenium / "experiment.xenium").write_text(json.dumps(about | {"pixel_size": 0}))
    with pytest.raises(ValueError, match="pixel_size=0"):
        read_xenium(xenium)


def test_proteins_on_their_own_scale(xenium: Path) -> None:
    """Proteins are kept ten times as large, the file says so."""
    import h5py

    with h5py.File(xenium / "cell_feature_matrix.h5", "r+") as file:
        kinds = file["matrix/features/feature_type"][:].astype("S30")
        kinds[0] = b"Protein Expression"
        del file["matrix/features/feature_type"]
        file["matrix/features/feature_type"] = kinds
        file.attrs["protein_scaling_factor"] = 10.0
    plain = read_xenium(xenium)["table"]
    assert plain.n_vars == 15
    assert plain.obsm["protein"].shape == (40, 1)
    with h5py.File(xenium / "cell_feature_matrix.h5", "r+") as file:
        file.attrs["protein_scaling_factor"] = 1.0
    np.testing.assert_allclose(read_xenium(xenium)["table"].obsm["protein"], plain.obsm["protein"] * 10, rtol=1e-5)


def test_stains_are_called_alike(tmp_path: Path) -> None:
    """A stain that is missing, or names that the file does not give, do not turn DAPI into dapi."""
    from sst.io.xenium._read import stain_names

    files = [tmp_path / f"ch000{i}_{name}.ome.tif" for i, name in ((0, "dapi"), (2, "18s"))]
    for file in files:
        tifffile.imwrite(file, np.zeros((8, 8), np.uint16), description="<OME/>")
    assert stain_names(files) == ["DAPI", "18s"]


@pytest.mark.parametrize("side", [400, 900])
def test_small_fields_are_divided(side: int) -> None:
    import anndata as ad

    rng = np.random.default_rng(0)
    n = side * side // 1500
    adata = ad.AnnData(np.ones((n, 2), np.float32), obs=pd.DataFrame(index=[str(i) for i in range(n)]))
    adata.obs["fov"] = "slide"
    adata.obsm["spatial_px"] = adata.obsm["spatial"] = rng.uniform(48, side - 48, (n, 2))
    adata.uns["crops"] = {"size": 96 if side == 900 else 48, "size_global": 96.0 if side == 900 else 48.0}
    with pytest.raises(ValueError, match="by='tile' divides"):
        sst.pp.train_test_split(adata, by="fov")
    sst.pp.train_test_split(adata, by="tile")
    report = adata.uns["split"]["report"]
    assert 0.05 * n < report["test"] < 0.45 * n
    assert report["train"] > 0.2 * n
    with pytest.raises(ValueError, match="tile_size=None looks"):
        sst.pp.train_test_split(adata, by="tile", tile_size=5000)


def test_pixels_that_are_not_finite(caplog) -> None:
    import anndata as ad

    rng = np.random.default_rng(0)
    crops = rng.uniform(0, 1000, (20, 2, 8, 8)).astype(np.float32)
    plain = ad.AnnData(np.ones((20, 1)), obsm={"crops": crops.copy()})
    spoiled = ad.AnnData(np.ones((20, 1)), obsm={"crops": crops.copy()})
    spoiled.obsm["crops"][3, 0, 2] = np.nan
    spoiled.obsm["crops"][4, 0, 2] = np.inf
    spoiled.obsm["crops"][5, 1] = np.nan
    for adata in (plain, spoiled):
        sst.pp.rescale_intensity(adata)
    assert "16 pixels of 2 crops are not finite" in caplog.text
    a, b = plain.obsm["crops"].astype(int), spoiled.obsm["crops"].astype(int)
    good = np.isfinite(crops)
    good[3:5, 0, 2] = good[5, 1] = False
    assert np.abs(a - b)[good].max() < 12
    assert (b[3, 0, 2] == 0).all()
    nothing = ad.AnnData(np.ones((20, 1)), obsm={"crops": np.full_like(crops, np.nan)})
    with pytest.raises(ValueError, match="no pixel of channel 0 is finite"):
        sst.pp.rescale_intensity(nothing)
