"""The parts of the CosMx reader: pictures, names, mosaic, placement, labels."""

from __future__ import annotations

import json
import pickle
import zipfile
from typing import TYPE_CHECKING

import dask.array as da
import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
import tifffile

from sst.io._raster import RasterError, RasterFile, channel_names, lazy_raster, raster_info
from sst.io._read_log import ReadLog
from sst.io.cosmx._layout import QUIRKS, fov_number
from sst.io.cosmx._mosaic import mosaic
from sst.io.cosmx._orientation import as_labels, label_agreement
from sst.io.cosmx._placement import place, read_positions
from sst.io.cosmx._tables import genes_first, labels_of

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = np.random.default_rng(0).integers(0, 60000, (5, 150, 130)).astype(np.uint16)


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": (64, 64)}, {"compression": "zlib"}, {"tile": (32, 32), "compression": "zlib"}, {"rowsperstrip": 7}],
    ids=str,
)
@pytest.mark.parametrize("packed", [False, True])
def test_tiff_is_read_lazily_and_exactly(tmp_path: Path, options: dict, packed: bool) -> None:
    path = tmp_path / "a_F001.TIF"
    tifffile.imwrite(path, IMAGE, photometric="minisblack", metadata=None, **options)
    file = RasterFile(str(path))
    if packed:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, "x/a_F001.TIF")
        file = RasterFile(str(tmp_path / "a.zip"), "x/a_F001.TIF")
    lazy = lazy_raster(file)
    assert lazy.shape == IMAGE.shape
    assert lazy.dtype == IMAGE.dtype
    np.testing.assert_array_equal(lazy, IMAGE)
    np.testing.assert_array_equal(lazy[2, 11:90, 5:6], IMAGE[2, 11:90, 5:6])
    np.testing.assert_array_equal(lazy[[4, 2], 100:], IMAGE[[4, 2], 100:])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy))[4, ::3], IMAGE[4, ::3])
    assert lazy.name == lazy_raster(file).name


def test_only_the_pages_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="minisblack", metadata=None)
    read = []
    real = tifffile.TiffPage.asarray
    monkeypatch.setattr(
        tifffile.TiffPage, "asarray", lambda page, *a, **k: read.append(page.index) or real(page, *a, **k)
    )
    lazy_raster(RasterFile(str(tmp_path / "a.tif")))[3].compute()
    assert read == [3]


def test_jpeg_and_png(tmp_path: Path) -> None:
    rgb = np.moveaxis(IMAGE[:3] // 256, 0, -1).astype(np.uint8)
    iio.imwrite(tmp_path / "a.png", rgb)
    np.testing.assert_array_equal(lazy_raster(RasterFile(str(tmp_path / "a.png"))), np.moveaxis(rgb, -1, 0))
    iio.imwrite(tmp_path / "a.jpg", rgb[..., 0])
    lazy = lazy_raster(RasterFile(str(tmp_path / "a.jpg")))
    assert lazy.shape == (1, 150, 130)
    np.testing.assert_array_equal(lazy[0], iio.imread(tmp_path / "a.jpg"))


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"")
    with pytest.raises(RasterError, match="empty"):
        raster_info(RasterFile(str(path)))
    path.write_bytes(b"no picture at all")
    with pytest.raises(RasterError, match="cannot be read"):
        raster_info(RasterFile(str(path)))
    tifffile.imwrite(path, IMAGE[0], metadata=None)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RasterError, match=r"truncated|cannot be read"):
        raster_info(RasterFile(str(path)))
    tifffile.imwrite(path, IMAGE, photometric="minisblack", metadata=None)
    lazy = lazy_raster(RasterFile(str(path)))
    tifffile.imwrite(path, IMAGE[:, 5:], photometric="minisblack", metadata=None)
    with pytest.raises(RasterError, match="expected 150 x 130"):
        lazy.compute()


def test_channel_names_of_the_first_page() -> None:
    reagents = [
        {"Fluorophore": {"ChannelId": "Y"}, "BiologicalTarget": "CD298/B2M"},
        {"Fluorophore": {"ChannelId": "G"}, "BiologicalTarget": "PanCK"},
    ]
    tree = {"ImageProcessing": {"ChannelOrder": "BGYRU"}, "MorphologyKit": {"MorphologyReagents": reagents}}
    assert channel_names(json.dumps(tree), 5) == ["B", "PanCK", "CD298/B2M", "R", "DAPI"]
    assert channel_names("tail " + json.dumps(tree) + " x", 5) == ["B", "PanCK", "CD298/B2M", "R", "DAPI"]
    assert channel_names(json.dumps(tree), 4) is None
    assert channel_names("", 5) is None
    assert channel_names('{"ChannelOrder": "BGYRU", "cut off', 5) == list("BGYRU")
    reagents[1]["BiologicalTarget"] = "CD298/B2M"
    assert channel_names(json.dumps(tree), 5) == ["B", "CD298/B2M (G)", "CD298/B2M (Y)", "R", "DAPI"]


@pytest.mark.parametrize(
    ("name", "fov"),
    [
        ("CellLabels_F001.tif", 1),
        ("20221202_130128_S2_C902_P99_N99_F00012.TIF", 12),
        ("CellComposite_F123.jpg", 123),
        ("x_FOV7.tif", 7),
        ("a_F003_Z004.TIF", 3),
        ("overview.tif", None),
        ("F12_thumbnail.tif", None),
    ],
)
def test_fov_in_a_name(name: str, fov: int | None) -> None:
    assert fov_number(name) == fov


def test_mosaic_equals_pasting() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.integers(1, 99, (2, 30, 25)) for _ in range(5)]
    corners = [(0, 0), (3, 24), (40, 70), (28, 2), (35, 60)]  # some overlap, some leave gaps
    expected = np.zeros((2, 75, 100), int)
    for part, (y, x) in zip(parts, corners, strict=True):
        expected[:, y : y + 30, x : x + 25] = part
    for chunk in (16, 33, 200):
        lazy = mosaic([da.from_array(p) for p in parts], corners, (75, 100), chunk=chunk)
        np.testing.assert_array_equal(lazy, expected)
        np.testing.assert_array_equal(lazy[1, 20:50, 20:80], expected[1, 20:50, 20:80])


def test_positions_file(tmp_path: Path) -> None:
    path = tmp_path / "fov_positions.csv"
    pd.DataFrame({"Slide": 1, "X_mm": [1.0, 2.0], "Y_mm": [0, 0], "FOV": [1, 2]}).to_csv(path, index=False)
    assert read_positions(path, ReadLog())["x_mm"].to_dict() == {1: 1.0, 2: 2.0}
    pd.DataFrame({"fov": [1, 1], "x_global_px": [1, 2], "y_global_px": 0}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="two positions"):
        read_positions(path, ReadLog())
    pd.DataFrame({"fov": [1, 2], "row": 1}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="no positions"):
        read_positions(path, ReadLog())


def test_nothing_to_place_by_lays_fovs_side_by_side() -> None:
    out = place([1, 2, 5], None, {}, (0, 0), (10, 20), up=True, pixel_size=0.1, log=ReadLog())
    assert out.source == "side by side"
    assert out.corners == {1: (0.0, 0.0), 2: (20.0, 0.0), 5: (0.0, 10.0)}


def test_a_swapped_stage_is_turned_to_the_cells() -> None:
    offsets = {1: (0.0, 0.0), 2: (100.0, 0.0), 3: (0.0, 70.0), 4: (100.0, 70.0)}
    stage = pd.DataFrame(
        {"x_mm": [-y for _, y in offsets.values()], "y_mm": [x for x, _ in offsets.values()]}, index=[1, 2, 3, 4]
    )
    out = place([1, 2, 3, 4], stage / 1000, offsets, (1, 1), (70, 100), up=False, pixel_size=1.0, log=ReadLog())
    np.testing.assert_allclose([out.corners[f] for f in offsets], list(offsets.values()), atol=1e-6)


def test_labels() -> None:
    assert as_labels(np.array([[0.0, 3.0]], np.float32)).dtype == np.int32
    for bad in ([[0.5]], [[-1.0]], [[np.nan]]):
        with pytest.raises(ValueError, match="labels must be"):
            as_labels(np.array(bad))
    assert labels_of(pd.Series(["c_1_2_30", "c_1_2_4"]), file="x").tolist() == [30, 4]
    with pytest.raises(ValueError, match="without a number"):
        labels_of(pd.Series(["c_1_2_30", None], name="cell"), file="x")


def test_agreement_is_the_share_of_hits() -> None:
    labels = np.zeros((4, 6), np.int32)
    labels[0, 2] = 7
    x, y, cell = np.array([2.5, 2.5, 5.9, 2.1]), np.array([0.2, 3.9, 99.0, 0.9]), np.array([7, 7, 7, 8])
    assert label_agreement(labels, x, y, cell, up=False) == 0.25
    assert label_agreement(labels, x, y, cell, up=True) == 0.25
    assert label_agreement(labels, x - 1, y, cell, up=False, shift=(1.0, 0.0)) == 0.25


def test_quirks() -> None:
    assert genes_first(["NegPrb1", "A", "SystemControl2", "B", "Negative3", "FalseCode1"])[:2] == ["A", "B"]
    assert QUIRKS.column("x", ["X_LOCAL_PX", "y"], file="f") == "X_LOCAL_PX"
    with pytest.raises(ValueError, match=r"f: no column for 'gene' \(looked for target, gene\)"):
        QUIRKS.column("gene", ["x", "y"], file="f")
