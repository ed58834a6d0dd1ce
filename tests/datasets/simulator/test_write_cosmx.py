from __future__ import annotations

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import tifffile

import sst
from sst.datasets import CHANNELS, simulate_tissue


@pytest.fixture(scope="module")
def tissue():
    return simulate_tissue(n_cells=90, fovs=3, n_genes=24)


@pytest.fixture(scope="module")
def expected(tissue):
    return tissue.to_adata()


def paired(sdata):
    return sst.pp.crop_cells(sdata, size=64, output_size=32, channels=["CD298/B2M", "DAPI"])


def assert_same_cells(read, expected, group: str, *, places: bool = True) -> None:
    """The reader's cells are those that the simulator pairs itself, to the last count and grey level."""
    mine = expected[expected.obs["condition"] == group]
    assert set(read.obs_names) == set(mine.obs_names)
    read = read[mine.obs_names, mine.var_names]
    np.testing.assert_array_equal(read.X.toarray(), mine.X.toarray())
    np.testing.assert_array_equal(read.layers["segmented"].toarray(), mine.layers["segmented"].toarray())
    np.testing.assert_array_equal(np.asarray(read.obsm["crops"]), mine.obsm["crops"])
    if places:
        np.testing.assert_allclose(read.obsm["spatial"], mine.obsm["spatial"], atol=1e-6)
        assert read.uns["crops"]["pixel_size"] == pytest.approx(mine.uns["crops"]["pixel_size"])


@pytest.mark.parametrize("layout", ["flat", "atomx"])
@pytest.mark.parametrize(("y_up", "positions"), [(True, "both"), (False, "mm"), (True, "px"), (False, "px")])
def test_read_back_to_the_same_cells(tissue, expected, tmp_path, layout, y_up, positions) -> None:
    slides = tissue.write_cosmx(tmp_path, layout=layout, y_up=y_up, positions=positions)
    assert [s.name for s in slides] == ["normal", "tumor"]
    sdata = sst.pp.read_cosmx(slides[1])
    facts = sdata.attrs["sst"]["read"]
    assert facts["y_axis"] == ("up" if y_up else "down")
    assert facts["channels"] == list(CHANNELS)
    # The flat layout says nothing of the pixel size where positions are in one unit alone.
    assert_same_cells(paired(sdata), expected, "tumor", places=layout == "atomx" or positions == "both")
    assert set(sdata["table"].var_names) == set(tissue.genes.index)


@pytest.mark.parametrize("y_up", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_public_release_reads_back(tissue, expected, tmp_path, y_up, zipped) -> None:
    tiledb = pytest.importorskip("tiledb")
    slides = tissue.write_cosmx(tmp_path, layout="release", y_up=y_up, zipped=zipped)
    root = tmp_path / "LiverDataReleaseTileDB"
    with tiledb.Group(str(root / "RNA")) as group:
        assert {m.name for m in group} == {"obs", "var", "X", "obsm"}
    with tiledb.open(str(root / "RNA" / "X" / "counts")) as array:
        assert [array.schema.domain.dim(i).name for i in range(2)] == ["obs_id", "var_id"]
    for i, group in enumerate(("normal", "tumor")):
        sdata = sst.pp.read_cosmx(slides[i], tiledb=root, slide=i + 1)
        assert_same_cells(paired(sdata), expected, group)
        kinds = {"Hep.1", "Hep.3"} if group == "normal" else {"tumor_1", "tumor_2"}
        assert set(sdata["table"].obs["cellType"]) == kinds
    if zipped:
        names = zipfile.ZipFile(slides[0]).namelist()
        assert sum("Morphology2D_Normalized/" in n for n in names) == 3


def test_flat_files_are_the_vendors(tissue, tmp_path) -> None:
    slide = tissue.write_cosmx(tmp_path, y_up=False)[0]
    tx = pd.read_csv(slide / "normal_tx_file.csv")
    assert list(tx.columns) == [
        "fov", "cell_ID", "x_global_px", "y_global_px", "x_local_px", "y_local_px", "z", "target", "CellComp",
    ]  # fmt: skip
    metadata = pd.read_csv(slide / "normal_metadata_file.csv")
    counts = pd.read_csv(slide / "normal_exprMat_file.csv")
    positions = pd.read_csv(slide / "normal_fov_positions_file.csv").set_index("fov")
    polygons = pd.read_csv(slide / "normal-polygons.csv")
    assert len(metadata) == 90
    assert set(counts["cell_ID"]) >= {0}
    assert len(counts) == 93
    # Counts are the transcripts of the label; transcripts lie in the label they are assigned to.
    targets = list(counts.columns[2:])
    assert sum(t.startswith("NegPrb") for t in targets) == 10
    again = tx.groupby(["fov", "cell_ID", "target"]).size().unstack(fill_value=0).reindex(columns=targets, fill_value=0)
    both = counts.set_index(["fov", "cell_ID"])
    np.testing.assert_array_equal(again.reindex(both.index, fill_value=0).to_numpy(), both.to_numpy())
    for fov in (1, 2, 3):
        picture = slide / "Morphology2D" / f"normal_F00{fov}.TIF"
        with tifffile.TiffFile(picture) as tif:
            assert len(tif.pages) == 5
            note = json.loads(tif.pages[0].description)
            image = np.stack([p.asarray() for p in tif.pages])
        assert note["ChannelOrder"] == "BGYRU"
        reagents = note["MorphologyKit"]["MorphologyReagents"]
        named = {r["Fluorophore"]["ChannelId"]: r["BiologicalTarget"] for r in reagents}
        assert [named[c] for c in "BGYRU"] == list(CHANNELS)
        view = tissue.draw("normal", fov)
        np.testing.assert_array_equal(image, view.images)
        labels = tifffile.imread(slide / "CellLabels" / f"CellLabels_F00{fov}.tif")
        assert labels.dtype == np.uint16
        np.testing.assert_array_equal(labels, view.labels)
        here = tx[tx["fov"] == fov]
        at = np.floor(here[["y_local_px", "x_local_px"]].to_numpy()).astype(int)
        np.testing.assert_array_equal(labels[at[:, 0], at[:, 1]], here["cell_ID"])
        corner = positions.loc[fov]
        np.testing.assert_allclose(here["x_global_px"] - here["x_local_px"], corner["x_global_px"])
        np.testing.assert_allclose(here["y_global_px"] - here["y_local_px"], corner["y_global_px"])
        assert corner["x_global_mm"] == pytest.approx(corner["x_global_px"] * 0.3 / 1000)
        cells = metadata[metadata["fov"] == fov].set_index("cell_ID")
        area = np.bincount(labels.ravel(), minlength=len(cells) + 1)[1:]
        np.testing.assert_array_equal(cells["Area"].sort_index(), area)
        k = int(np.argmax(area)) + 1
        assert cells.loc[k, "Mean.DAPI"] == round(view.images[4][labels == k].mean())
        assert cells.loc[k, "Max.MembraneStain"] == view.images[2][labels == k].max()
        ring = polygons[(polygons["fov"] == fov) & (polygons["cellID"] == k)]
        x, y = ring["x_local_px"].to_numpy(), ring["y_local_px"].to_numpy()
        shoelace = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
        assert shoelace == pytest.approx(area[k - 1], rel=0.2)


def test_y_up_is_the_mirror_image(tissue, tmp_path) -> None:
    up, down = (
        pd.read_csv(tissue.write_cosmx(tmp_path / str(y), y_up=y)[0] / "normal_tx_file.csv") for y in (True, False)
    )
    np.testing.assert_allclose(up["y_local_px"] + down["y_local_px"], tissue.config.side)
    # Both place each transcript at the same spot of the slide, but for its sense.
    turned = up["y_global_px"] + down["y_global_px"]
    np.testing.assert_allclose(turned, turned.iloc[0])


def test_atomx_names_things_otherwise(tissue, tmp_path) -> None:
    slide = tissue.write_cosmx(tmp_path, layout="atomx", channel_names=False, positions="mm", compression="zlib")[1]
    assert list(pd.read_csv(slide / "tumor_fov_positions_file.csv.gz").columns) == ["Slide", "X_mm", "Y_mm", "FOV"]
    metadata = pd.read_csv(slide / "tumor_metadata_file.csv.gz")
    assert {"cell_ID", "cell_id", "cell", "x_slide_mm"} <= set(metadata)
    assert metadata["cell"].iloc[0] == "c_2_1_1"
    counts = pd.read_csv(slide / "tumor_exprMat_file.csv.gz", nrows=5)
    assert {"Negative10", "SystemControl6"} <= set(counts)
    pictures = sorted((slide / "CellStatsDir" / "Morphology2D").iterdir())
    assert [p.name[-11:] for p in pictures] == [f"_F0000{f}.TIF" for f in (1, 2, 3)]
    assert (slide / "CellStatsDir" / "FOV00002" / "CellLabels_F00002.tif").is_file()
    with tifffile.TiffFile(pictures[0]) as tif:
        assert "ChannelOrder" not in tif.pages[0].description
        np.testing.assert_array_equal(tif.pages[4].asarray(), tissue.draw("tumor", 1).images[4])


def test_truth_lies_beside(tissue, tmp_path) -> None:
    edited = tissue.counterfactual("H2AZ1", "normal", "tumor")
    edited.write_cosmx(tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "truth.parquet"), edited.causes)
    note = json.loads((tmp_path / "truth.json").read_text())
    assert note["config"]["seed"] == 0
    assert note["edits"] == ["H2AZ1: normal -> tumor"]
    genes = pd.read_csv(tmp_path / "truth_genes.csv", index_col=0, keep_default_na=False)
    assert genes.loc["H2AZ1", "causes"] == "nucleus_area"


def test_errors_name_the_value_and_the_options(tissue, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"layout='flta'.*flat"):
        tissue.write_cosmx(tmp_path, layout="flta")
    with pytest.raises(ValueError, match=r"positions='um'.*mm"):
        tissue.write_cosmx(tmp_path, positions="um")
    with pytest.raises(ValueError, match="zipped=True.*'flat'"):
        tissue.write_cosmx(tmp_path, zipped=True)
