"""CosMx exports of every layout, written here and read back to the same cells."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import tifffile

from sst.pp import read_cosmx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

H, W, PX = 96, 120, 0.12028
CORNERS = {1: (0, 0), 2: (0, W), 4: (H, 0)}  # FOV -> row, column in the mosaic; FOV 3 was never taken
GENES = ["HLA-A", "B2M", "TTR", "NKX2-1", "KRT7"]
CONTROLS = ["NegPrb1", "Negative5", "SystemControl3", "FalseCode2"]
TARGETS = [*GENES[:3], *CONTROLS[:2], *GENES[3:], *CONTROLS[2:]]
LETTERS = "BGYRU"
STAINS = {"B": "CD3", "G": "PanCK", "Y": "CD298/B2M", "R": "CD45", "U": "DAPI"}


@dataclass
class Truth:
    """A slide in the pixels of its pictures."""

    images: dict[int, np.ndarray]
    labels: dict[int, np.ndarray]
    cells: pd.DataFrame  # fov, label, x, y
    tx: pd.DataFrame  # fov, label, x, y, target

    @property
    def counts(self) -> pd.DataFrame:
        inside = self.tx[self.tx["label"] > 0]
        table = pd.crosstab([inside["fov"], inside["label"]], inside["target"])
        index = pd.MultiIndex.from_frame(self.cells[["fov", "label"]])
        return table.reindex(index=index, columns=TARGETS, fill_value=0)


@pytest.fixture(scope="module")
def truth() -> Truth:
    rng = np.random.default_rng(0)
    images, labels, cells, tx = {}, {}, [], []
    for fov in CORNERS:
        label = np.zeros((H, W), np.uint16)
        for k, (row, col) in enumerate(np.ndindex(4, 5), start=1):
            if rng.random() < 0.8:
                y, x = 6 + row * 23 + rng.integers(0, 6), 4 + col * 23 + rng.integers(0, 6)
                label[y : y + rng.integers(8, 14), x : x + rng.integers(8, 14)] = 3 * k
        labels[fov] = label
        images[fov] = rng.integers(0, 60000, (5, H, W)).astype(np.uint16)
        n = 3000
        x, y = rng.uniform(0, W, n).round(4), rng.uniform(0, H, n).round(4)
        inside = label[np.minimum(y, H - 1e-6).astype(int), np.minimum(x, W - 1e-6).astype(int)]
        targets = rng.choice(TARGETS, n)
        tx.append(pd.DataFrame({"fov": fov, "label": inside, "x": x, "y": y, "target": targets}))
        for k in np.unique(label[label > 0]):
            rows, cols = np.nonzero(label == k)
            cells.append({"fov": fov, "label": int(k), "x": cols.mean() + 0.5, "y": rows.mean() + 0.5})
    return Truth(images, labels, pd.DataFrame(cells), pd.concat(tx, ignore_index=True))


def local(frame: pd.DataFrame, *, up: bool, shift: float) -> pd.DataFrame:
    """The vendor's coordinates of image coordinates."""
    y = frame["y"] - shift
    return frame.assign(x=frame["x"] - shift, y=H - y if up else y)


def write_csv(frame: pd.DataFrame, path: Path, *, packed: bool) -> None:
    path = path.with_name(path.name + ".gz") if packed else path
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)


def page_json() -> str:
    reagents = [{"Fluorophore": {"ChannelId": k}, "BiologicalTarget": v} for k, v in STAINS.items() if k != "U"]
    return json.dumps({"ChannelOrder": LETTERS, "MorphologyKit": {"MorphologyReagents": reagents}})


def write(
    folder: Path,
    truth: Truth,
    *,
    atomx: bool = False,
    up: bool = True,
    sense: int = 1,
    units: str = "px",
    shift: float = 0.0,
    names: bool = True,
    with_global: bool = True,
    packed: bool | None = None,
) -> Path:
    """Write the slide as old flat files or as an AtoMx export; ``sense``: the vendor's global y rises with the rows."""
    packed = atomx if packed is None else packed
    counts = truth.counts
    fov_name = "fov"
    slope = -sense if up else sense
    anchor = {f: (5000.0 + c, 700.0 + sense * (r + (H if up else 0))) for f, (r, c) in CORNERS.items()}

    def add_global(frame: pd.DataFrame) -> pd.DataFrame:
        ax, ay = (frame["fov"].map({f: a[i] for f, a in anchor.items()}) for i in (0, 1))
        return frame.assign(gx=ax + frame["x"], gy=ay + slope * frame["y"])

    cells = add_global(local(truth.cells, up=up, shift=shift))
    meta = pd.DataFrame({"fov": cells["fov"], "cell_ID": cells["label"], "Area": 100})
    meta["CenterX_local_px"], meta["CenterY_local_px"] = cells["x"], cells["y"]
    if with_global:
        meta["CenterX_global_px"], meta["CenterY_global_px"] = cells["gx"], cells["gy"]
    meta["Mean.CD298/B2M"] = 3.5
    name = "c_7_" + meta["fov"].astype(str) + "_" + meta["cell_ID"].astype(str)
    if atomx:
        meta["cell_id"] = name
        meta["Panel"] = "human 1k"
    expression = counts.reset_index().rename(columns={"label": "cell_ID"})
    outside = pd.DataFrame(1, index=range(len(CORNERS)), columns=expression.columns).assign(
        fov=list(CORNERS), cell_ID=0
    )
    expression = pd.concat([outside, expression]).sort_values(["fov", "cell_ID"])
    tx = add_global(local(truth.tx, up=up, shift=shift))
    out = pd.DataFrame({"fov": tx["fov"], "cell_ID": tx["label"]})
    if atomx:
        out["cell"] = "c_7_" + out["fov"].astype(str) + "_" + out["cell_ID"].astype(str)
    out["x_local_px"], out["y_local_px"] = tx["x"], tx["y"]
    if with_global:
        out["x_global_px"], out["y_global_px"] = tx["gx"], tx["gy"]
    out["z"], out["target"], out["CellComp"] = 2, tx["target"], "Nuclear" if atomx else 1
    fov_name = "FOV" if atomx else "fov"
    xy = np.array(list(anchor.values()))
    positions = pd.DataFrame({fov_name: list(anchor)})
    if units in ("px", "both"):
        positions["x_global_px"], positions["y_global_px"] = xy.T
    if units in ("mm", "both"):
        positions["x_global_mm"], positions["y_global_mm"] = xy.T * PX / 1000
    if units == "stage":  # stage millimetres, y running against the cells' global y
        positions = positions.assign(Slide=1, X_mm=xy[:, 0] * PX / 1000 + 3, Y_mm=9 - xy[:, 1] * PX / 1000)
    for kind, frame in (("exprMat", expression), ("metadata", meta), ("tx", out), ("fov_positions", positions)):
        if kind != "fov_positions" or units != "none":
            write_csv(frame, folder / f"S1_{kind}_file.csv", packed=packed)
    if atomx:
        corners = [
            local(cells.assign(x=truth.cells["x"] + dx, y=truth.cells["y"] + dy), up=up, shift=shift)
            for dx, dy in ((-4, -4), (4, -4), (4, 4), (-4, 4))
        ]
        polygons = pd.concat(
            [
                pd.DataFrame({"fov": c["fov"], "cellID": c["label"], "x_local_px": c["x"], "y_local_px": c["y"]})
                for c in corners
            ]
        )
        write_csv(polygons, folder / "S1-polygons.csv", packed=packed)
    stats = folder / "CellStatsDir" if atomx else folder
    for fov, image in truth.images.items():
        digits = f"F{fov:05d}" if atomx else f"F{fov:03d}"
        picture = (
            stats / "Morphology2D" / (f"20221202_130128_S2_C902_P99_N99_{digits}.TIF" if atomx else f"S1_{digits}.TIF")
        )
        picture.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            picture, image, photometric="minisblack", description=page_json() if names else None, metadata=None
        )
        label = stats / (f"FOV{fov:05d}" if atomx else "CellLabels") / f"CellLabels_{digits}.tif"
        label.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(label, truth.labels[fov])
    return folder


def same_cells(
    sdata: sd.SpatialData, truth: Truth, *, fovs: tuple[int, ...] = tuple(CORNERS), atol: float = 1e-6
) -> None:
    """Every picture, label, transcript and cell is where it was."""
    table = sdata["table"]
    cells = truth.cells[truth.cells["fov"].isin(fovs)]
    order = table.obs.reset_index(drop=True).sort_values(["fov", "label"]).index
    obs = table.obs.iloc[order]
    assert obs["fov"].astype(str).tolist() == [f"F{f:03d}" for f in cells["fov"]]
    assert obs["label"].tolist() == cells["label"].tolist()
    np.testing.assert_allclose(obs[["x_px", "y_px"]], cells[["x", "y"]], atol=atol)
    assert obs["cell_id"].is_unique
    assert sorted(table.var_names) == sorted(GENES)
    counts = truth.counts.loc[list(zip(cells["fov"], cells["label"], strict=True))]
    np.testing.assert_array_equal(table.X[order].toarray(), counts[list(table.var_names)])
    assert obs["negative_probe_counts"].tolist() == counts[CONTROLS[:2]].sum(axis=1).tolist()
    assert obs["system_control_counts"].tolist() == counts[CONTROLS[2:]].sum(axis=1).tolist()
    scale = sdata.attrs["sst"]["pixel_size"] or 1.0
    for fov in fovs:
        key = f"F{fov:03d}"
        np.testing.assert_array_equal(sdata[f"{key}_image"].to_numpy(), truth.images[fov])
        if f"{key}_labels" in sdata.labels:
            np.testing.assert_array_equal(sdata[f"{key}_labels"].to_numpy(), truth.labels[fov])
        points = sdata[f"{key}_points"].compute()
        points = points.sort_values(["x", "y"])  # TileDB does not keep the order
        real = truth.tx[truth.tx["fov"] == fov].sort_values(["x", "y"])
        np.testing.assert_allclose(points[["x", "y"]], real[["x", "y"]], atol=atol)
        assert points["gene"].astype(str).tolist() == real["target"].tolist()
        assert points["cell_id"].tolist() == real["label"].tolist()
        assert list(points["gene"].cat.categories[: len(GENES)]) == list(table.var_names)
        matrix = sd.transformations.get_transformation(sdata[f"{key}_image"], "global").to_affine_matrix(
            ("x", "y"), ("x", "y")
        )
        np.testing.assert_allclose(
            matrix, [[scale, 0, CORNERS[fov][1] * scale], [0, scale, CORNERS[fov][0] * scale], [0, 0, 1]], atol=1e-3
        )
        assert set(sd.transformations.get_transformation(sdata[f"{key}_points"], get_all=True)) == {"global", key}
    corner = np.array([CORNERS[f][::-1] for f in cells["fov"]])
    np.testing.assert_allclose(table.obsm["spatial"][order], (corner + cells[["x", "y"]].to_numpy()) * scale, atol=1e-3)


@pytest.mark.parametrize("sense", [1, -1])
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize(
    ("atomx", "units"), [(False, "px"), (True, "both"), (True, "mm"), (True, "stage"), (False, "none")]
)
def test_every_layout_sign_and_unit(
    tmp_path: Path, truth: Truth, atomx: bool, up: bool, sense: int, units: str
) -> None:
    sdata = read_cosmx(write(tmp_path, truth, atomx=atomx, up=up, sense=sense, units=units), pixel_size=PX)
    same_cells(sdata, truth)
    said = sdata.attrs["sst"]["read"]
    assert said["layout"] == ("atomx" if atomx else "flat")
    assert said["y_axis"] == ("up" if up else "down")
    assert min(said["agreement"].values()) > 0.99
    assert said["placement"] == {"px": "positions (px)", "both": "positions (px)", "none": "cells"}.get(
        units, "positions (mm)"
    )
    assert list(sdata["F001_image"].coords["c"].values) == [STAINS[c] for c in LETTERS]
    assert list(sdata["table"].var_names) == GENES


@pytest.mark.parametrize("up", [True, False])
def test_coordinates_that_count_from_pixel_centres(tmp_path: Path, truth: Truth, up: bool) -> None:
    sdata = read_cosmx(write(tmp_path, truth, up=up, shift=0.5))
    assert sdata.attrs["sst"]["read"]["shift"] == [0.5, 0.5]
    same_cells(sdata, truth)


def test_pixel_size_and_names_of_an_atomx_export(tmp_path: Path, truth: Truth) -> None:
    sdata = read_cosmx(write(tmp_path, truth, atomx=True, units="both"))
    assert sdata.attrs["sst"]["pixel_size"] == pytest.approx(PX)
    obs = sdata["table"].obs
    assert obs["cell_id"].str.startswith("c_7_").all()
    assert obs["Mean.CD298_B2M"].eq(3.5).all()
    assert obs["Panel"].astype(str).eq("human 1k").all()
    shape = sdata["F001_polygons"].iloc[0].geometry
    cell = truth.cells.iloc[0]
    np.testing.assert_allclose(shape.bounds, [cell["x"] - 4, cell["y"] - 4, cell["x"] + 4, cell["y"] + 4], atol=1e-6)
    assert sdata["F001_polygons"].index[0] == cell["label"]
    assert sdata["table"].uns["spatialdata_attrs"]["instance_key"] == "label"


def test_flat_pixel_size_is_the_old_instruments(tmp_path: Path, truth: Truth) -> None:
    assert read_cosmx(write(tmp_path, truth)).attrs["sst"]["pixel_size"] == 0.18


def test_names_missing_from_the_page(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path, truth, names=False)
    assert list(read_cosmx(tmp_path)["F001_image"].coords["c"].values) == list(LETTERS)
    given = ["a", "b", "CD298/B2M", "d", "DAPI"]
    assert list(read_cosmx(tmp_path, channels=given)["F001_image"].coords["c"].values) == given
    with pytest.raises(ValueError, match="5 channels"):
        read_cosmx(tmp_path, channels=["DAPI"])


@pytest.mark.parametrize("stitch", [False, True])
def test_round_trip(tmp_path: Path, truth: Truth, stitch: bool) -> None:
    sdata = read_cosmx(write(tmp_path / "s", truth, atomx=True, units="both"), stitch=stitch)
    sdata.write(tmp_path / "out.zarr")
    back = sd.read_zarr(tmp_path / "out.zarr")
    assert back.attrs["sst"] == sdata.attrs["sst"]
    assert sorted(n for _, n, _ in back.gen_elements()) == sorted(n for _, n, _ in sdata.gen_elements())
    pd.testing.assert_frame_equal(
        back["table"].obs,
        sdata["table"].obs,
        check_dtype=False,
        check_index_type=False,
        check_column_type=False,
        check_categorical=False,
    )
    if not stitch:
        same_cells(back, truth)


def test_stitched_mosaic_is_the_same_slide(tmp_path: Path, truth: Truth) -> None:
    sdata = read_cosmx(write(tmp_path, truth, atomx=True, units="both"), stitch=True)
    image, labels = sdata["image"].to_numpy(), sdata["labels"].to_numpy()
    assert image.shape == (5, 2 * H, 2 * W)
    for fov, (row, col) in CORNERS.items():
        np.testing.assert_array_equal(image[:, row : row + H, col : col + W], truth.images[fov])
        np.testing.assert_array_equal(labels[row : row + H, col : col + W] > 0, truth.labels[fov] > 0)
    assert not image[:, H:, W:].any()
    obs = sdata["table"].obs
    at = labels[obs["y_px"].astype(int), obs["x_px"].astype(int)]
    np.testing.assert_array_equal(at, obs["label"])
    assert obs["label"].is_unique
    points = sdata["points"].compute()
    assert len(points) == len(truth.tx)
    assert (
        labels[np.floor(points["y"]).astype(int).clip(0, 2 * H - 1), np.floor(points["x"]).astype(int)]
        == points["cell_id"]
    ).mean() > 0.999
    assert sdata["points"].npartitions == len(CORNERS)


def test_only_some_fovs_keep_their_place(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path, truth)
    same_cells(read_cosmx(tmp_path, fovs=["F002", 4], pixel_size=PX), truth, fovs=(2, 4))
    with pytest.raises(KeyError, match="3"):
        read_cosmx(tmp_path, fovs=[3])
    with pytest.raises(ValueError, match="tumor"):
        read_cosmx(tmp_path, fovs=["tumor"])


def test_wrong_labels_warn_and_no_agreement_is_an_error(
    tmp_path: Path, truth: Truth, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, truth)
    tifffile.imwrite(tmp_path / "CellLabels" / "CellLabels_F002.tif", np.roll(truth.labels[2], 40, axis=1))
    with caplog.at_level("WARNING", logger="sst"):
        said = read_cosmx(tmp_path).attrs["sst"]["read"]
    assert said["agreement"]["F002"] < 0.9 < said["agreement"]["F001"]
    assert "fewer than 90 %" in caplog.text
    for fov in CORNERS:
        tifffile.imwrite(
            tmp_path / "CellLabels" / f"CellLabels_F{fov:03d}.tif", np.roll(truth.labels[fov], (11, 43), axis=(0, 1))
        )
    with pytest.raises(ValueError, match="y axis cannot be found"):
        read_cosmx(tmp_path)
    assert read_cosmx(tmp_path, y_axis="up").attrs["sst"]["read"]["y_axis_evidence"] == "given"


def test_without_labels_brightness_tells(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path, truth, up=True)
    shutil.rmtree(tmp_path / "CellLabels")
    with pytest.raises(ValueError, match="no labels"):  # noise: the pictures do not tell
        read_cosmx(tmp_path)
    for fov, image in truth.images.items():
        bright = image.copy()
        bright[4] = np.where(truth.labels[fov] > 0, 50000, 100)
        tifffile.imwrite(
            tmp_path / "Morphology2D" / f"S1_F{fov:03d}.TIF", bright, photometric="minisblack", metadata=None
        )
    sdata = read_cosmx(tmp_path)
    assert sdata.attrs["sst"]["read"]["y_axis"] == "up"
    assert sdata.attrs["sst"]["read"]["y_axis_evidence"] == "intensity"
    assert not sdata.labels


def edit_csv(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    frame = pd.read_csv(path)
    change(frame).to_csv(path, index=False)


def test_repeated_rows_are_counted_and_contradictions_are_errors(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path, truth)
    meta, expression = tmp_path / "S1_metadata_file.csv", tmp_path / "S1_exprMat_file.csv"
    edit_csv(meta, lambda f: pd.concat([f, f.iloc[:3]]))
    edit_csv(expression, lambda f: pd.concat([f, f.iloc[4:6]]))
    sdata = read_cosmx(tmp_path, pixel_size=PX)
    same_cells(sdata, truth)
    said = pd.DataFrame(sdata.attrs["sst"]["read"]["table"]).query("why == 'repeated'")
    assert dict(zip(said["what"], said["count"], strict=True)) == {
        "rows of the metadata": 3,
        "rows of the expression matrix": 2,
    }
    edit_csv(expression, lambda f: pd.concat([f, f.iloc[4:6].assign(**{"B2M": 99})]))
    with pytest.raises(ValueError, match="two rows that differ"):
        read_cosmx(tmp_path)
    edit_csv(meta, lambda f: pd.concat([f, f.iloc[4:6].assign(Area=7)]))
    with pytest.raises(ValueError, match="two rows that differ"):
        read_cosmx(tmp_path)


def test_cells_in_one_table_only(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path, truth)
    edit_csv(tmp_path / "S1_metadata_file.csv", lambda f: f.iloc[2:])
    edit_csv(tmp_path / "S1_exprMat_file.csv", lambda f: f.iloc[:-1])
    sdata = read_cosmx(tmp_path)
    said = pd.DataFrame(sdata.attrs["sst"]["read"]["table"])
    assert sdata["table"].n_obs == len(truth.cells) - 3
    assert said.query("why == 'not in the metadata'")["count"].tolist() == [2]
    assert said.query("why == 'in the metadata, not in the expression matrix'")["count"].tolist() == [1]


def test_fovs_that_are_not_complete_are_left(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path, truth)
    picture = tmp_path / "Morphology2D" / "S1_F002.TIF"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    sdata = read_cosmx(tmp_path, pixel_size=PX)
    assert sdata.attrs["sst"]["fovs"] == ["F001", "F004"]
    assert any("S1_F002.TIF" in w for w in sdata.attrs["sst"]["read"]["table"]["why"])
    same_cells(sdata, truth, fovs=(1, 4))
    picture.write_bytes(whole)
    (tmp_path / "CellLabels" / "CellLabels_F004.tif").unlink()
    assert read_cosmx(tmp_path).attrs["sst"]["fovs"] == ["F001", "F002"]
    tifffile.imwrite(tmp_path / "CellLabels" / "CellLabels_F004.tif", truth.labels[4][:50])
    assert read_cosmx(tmp_path).attrs["sst"]["fovs"] == ["F001", "F002"]
    picture.unlink()
    assert read_cosmx(tmp_path).attrs["sst"]["fovs"] == ["F001"]
    edit_csv(tmp_path / "S1_tx_file.csv", lambda f: f[f["fov"] != 1])
    with pytest.raises(ValueError, match="no FOV"):
        read_cosmx(tmp_path)


def test_fov_without_a_position_is_placed_by_its_cells(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path, truth)
    edit_csv(tmp_path / "S1_fov_positions_file.csv", lambda f: f[f["fov"] != 4])
    same_cells(read_cosmx(tmp_path, pixel_size=PX), truth)
    write(tmp_path / "b", truth, with_global=False)
    edit_csv(tmp_path / "b" / "S1_fov_positions_file.csv", lambda f: f[f["fov"] != 4])
    with pytest.raises(ValueError, match="no position"):
        read_cosmx(tmp_path / "b")


@pytest.mark.parametrize("kind", ["exprMat", "metadata", "tx"])
def test_missing_and_truncated_tables(tmp_path: Path, truth: Truth, kind: str) -> None:
    write(tmp_path, truth, atomx=True)
    path = tmp_path / f"S1_{kind}_file.csv.gz"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"{kind}_file.*truncated"):
        read_cosmx(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=kind):
        read_cosmx(tmp_path)
    text = gzip.decompress(data).decode().rsplit(",", 2)[0]  # the last row lacks columns
    (tmp_path / f"S1_{kind}_file.csv").write_text(text)
    with pytest.raises(ValueError, match="truncated"):
        read_cosmx(tmp_path)
    (tmp_path / f"S1_{kind}_file.csv").write_text("")
    with pytest.raises(ValueError, match=kind):
        read_cosmx(tmp_path)


@pytest.mark.parametrize(
    ("kind", "column"),
    [("metadata", "CenterX_local_px"), ("tx", "target"), ("tx", "y_local_px"), ("exprMat", "cell_ID")],
)
def test_absent_columns_are_named(tmp_path: Path, truth: Truth, kind: str, column: str) -> None:
    write(tmp_path, truth)
    edit_csv(tmp_path / f"S1_{kind}_file.csv", lambda f: f.drop(columns=column))
    with pytest.raises(ValueError, match=f"{kind}_file.*{column}"):
        read_cosmx(tmp_path)


def test_strange_counts_targets_and_panels(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path, truth)
    path = tmp_path / "S1_exprMat_file.csv"
    text = path.read_text()
    edit_csv(path, lambda f: f.assign(B2M=f["B2M"] + 0.5))
    with pytest.raises(ValueError, match="whole numbers"):
        read_cosmx(tmp_path)
    path.write_text(text.replace("TTR", "B2M", 1))
    with pytest.raises(ValueError, match="B2M"):
        read_cosmx(tmp_path)
    path.write_text(text)
    edit_csv(tmp_path / "S1_tx_file.csv", lambda f: f.assign(target="x" + f["target"]).pipe(lambda g: g))
    edit_csv(path, lambda f: f[["fov", "cell_ID", "B2M", "TTR"]])
    with pytest.raises(ValueError, match="different panels"):
        read_cosmx(tmp_path)


def test_two_slides_in_a_folder_need_a_choice(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path, truth)
    for file in list(tmp_path.glob("S1_*.csv")):
        shutil.copy(file, tmp_path / file.name.replace("S1", "S2"))
    with pytest.raises(ValueError, match="dataset"):
        read_cosmx(tmp_path)
    same_cells(read_cosmx(tmp_path, dataset="S2", pixel_size=PX), truth)
    with pytest.raises(KeyError, match="S3"):
        read_cosmx(tmp_path, dataset="S3")


def test_transcripts_on_disk_are_the_same(tmp_path: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    import sst.io.cosmx._transcripts as module

    monkeypatch.setattr(module, "_IN_MEMORY", 4000)
    write(tmp_path / "s", truth)
    first = read_cosmx(tmp_path / "s", cache=tmp_path / "cache", pixel_size=PX)
    same_cells(first, truth)
    assert len(list((tmp_path / "cache").glob("*/*.parquet"))) == len(CORNERS)
    stamp = {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").glob("*/*")}
    same_cells(read_cosmx(tmp_path / "s", cache=tmp_path / "cache", pixel_size=PX, stitch=False), truth)
    assert stamp == {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").glob("*/*")}
    assert len(read_cosmx(tmp_path / "s", cache=tmp_path / "cache", stitch=True)["points"]) == len(truth.tx)


def test_pictures_in_a_zip(tmp_path: Path, truth: Truth) -> None:
    write(tmp_path / "s", truth)
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in ("Morphology2D", "CellLabels"):
            for file in (tmp_path / "s" / folder).iterdir():
                archive.write(file, f"Normal/{folder}/{file.name}")
            shutil.rmtree(tmp_path / "s" / folder)
    same_cells(read_cosmx(tmp_path / "s", images=tmp_path / "pictures.zip", pixel_size=PX), truth)
    (tmp_path / "pictures.zip").write_bytes((tmp_path / "pictures.zip").read_bytes()[:5000])
    with pytest.raises(ValueError, match="whole zip"):
        read_cosmx(tmp_path / "s", images=tmp_path / "pictures.zip")


# --- the public liver release --------------------------------------------------------------------------------------


def write_array(path: Path, frame: pd.DataFrame, dims: list[str], *, sparse: bool = True) -> None:
    """A TileDB array whose dimensions are string columns (sparse), or the row number (dense)."""
    import tiledb

    columns = {c: frame[c].to_numpy() for c in frame}
    columns = {
        c: v.astype(str).astype("S").astype(object) if v.dtype.kind not in "if" else v for c, v in columns.items()
    }
    attrs = [
        tiledb.Attr(name=c, dtype="ascii" if v.dtype == object else v.dtype, var=v.dtype == object)
        for c, v in columns.items()
        if c not in dims
    ]
    if sparse:
        domain = [tiledb.Dim(name=d, domain=(None, None), tile=None, dtype="ascii") for d in dims]
    else:
        domain = [tiledb.Dim(name="row", domain=(0, len(frame) - 1), tile=1000, dtype=np.uint64)]
    schema = tiledb.ArraySchema(tiledb.Domain(*domain), attrs=attrs, sparse=sparse, allows_duplicates=sparse)
    tiledb.Array.create(str(path), schema)
    with tiledb.open(str(path), "w") as array:
        at = tuple(columns.pop(d).astype("S") for d in dims) if sparse else slice(None)
        array[at[0] if sparse and len(at) == 1 else at] = columns


def write_liver(folder: Path, truth: Truth, *, up: bool, sparse: bool = True) -> tuple[Path, Path]:
    """Two slides in one TileDB group (slide 2 is a decoy), the pictures of slide 1 as a zip."""
    pytest.importorskip("tiledb")
    frames, values, coords = [], [], []
    for slide in (1, 2):
        cells = local(truth.cells, up=up, shift=0.0)
        obs = pd.DataFrame(
            {"fov": cells["fov"], "x_FOV_px": cells["x"], "y_FOV_px": cells["y"], "slide_ID_numeric": slide}
        )
        obs["cellType"], obs["niche"] = "Hep.1", "zone"
        ids = f"c_{slide}_" + cells["fov"].astype(str) + "_" + cells["label"].astype(str)
        row, col = (cells["fov"].map({f: c[i] for f, c in CORNERS.items()}) for i in (0, 1))
        obs["x_slide_mm"] = (col + truth.cells["x"]) * PX / 1000
        obs["y_slide_mm"] = -(row + truth.cells["y"]) * PX / 1000
        frames.append(obs.assign(obs_id=ids))
        counts = truth.counts
        rows, columns = np.nonzero(counts.to_numpy())
        values.append(
            pd.DataFrame(
                {
                    "obs_id": ids.to_numpy()[rows],
                    "var_id": np.array(TARGETS)[columns],
                    "value": counts.to_numpy()[rows, columns].astype(float),
                }
            )
        )
        tx = local(truth.tx, up=up, shift=0.0)
        coords.append(
            pd.DataFrame(
                {
                    "slideID": slide,
                    "fov": tx["fov"],
                    "x_FOV_px": tx["x"],
                    "y_FOV_px": tx["y"],
                    "z_FOV_slice": 1,
                    "cell_id": f"c_{slide}_" + tx["fov"].astype(str) + "_" + tx["label"].astype(str),
                    "CellId": tx["label"].astype(int),
                    "CellComp": "Nuclear",
                    "target": tx["target"],
                }
            )
        )
    rna = folder / "LiverDataRelease" / "RNA"
    (rna / "X").mkdir(parents=True)
    (rna / "obsm").mkdir()
    write_array(rna / "obs", pd.concat(frames), ["obs_id"])
    write_array(rna / "var", pd.DataFrame({"var_id": TARGETS, "mean": 1.0}), ["var_id"])
    write_array(rna / "X" / "counts", pd.concat(values), ["obs_id", "var_id"])
    frame = pd.concat(coords, ignore_index=True)
    write_array(rna / "obsm" / "transcriptCoords", frame, ["cell_id"], sparse=sparse)
    pictures = folder / "NormalLiverFiles.zip"
    with zipfile.ZipFile(pictures, "w") as archive:
        for fov, image in truth.images.items():
            for name, data in (
                (f"Morphology2D_Normalized/20220_S1_F{fov:03d}.TIF", image),
                (f"CellLabels/CellLabels_F{fov:03d}.tif", truth.labels[fov]),
            ):
                tifffile.imwrite(folder / "x.tif", data, photometric="minisblack", metadata=None)
                archive.write(folder / "x.tif", f"NormalLiverFiles/{name}")
    (folder / "x.tif").unlink()
    return pictures, folder / "LiverDataRelease"


@pytest.mark.parametrize(("up", "sparse"), [(True, True), (False, False)])
def test_public_liver_release(tmp_path: Path, truth: Truth, up: bool, sparse: bool) -> None:
    pictures, group = write_liver(tmp_path, truth, up=up, sparse=sparse)
    with pytest.raises(ValueError, match="slide="):
        read_cosmx(pictures, tiledb=group)
    with pytest.raises(KeyError, match="3"):
        read_cosmx(pictures, tiledb=group, slide=3)
    sdata = read_cosmx(pictures, tiledb=group, slide=1)
    assert sdata.attrs["sst"]["pixel_size"] == pytest.approx(PX)
    same_cells(sdata, truth)
    assert list(sdata["F001_image"].coords["c"].values) == ["B", "G", "CD298/B2M", "R", "DAPI"]
    obs = sdata["table"].obs
    assert set(obs["cellType"].astype(str)) == {"Hep.1"}
    assert obs["cell_id"].str.startswith("c_1_").all()
    assert sdata.attrs["sst"]["read"]["layout"] == "tiledb"
    sdata.write(tmp_path / "out.zarr")
    same_cells(sd.read_zarr(tmp_path / "out.zarr"), truth)


def test_tiledb_errors(tmp_path: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, group = write_liver(tmp_path, truth, up=True)
    shutil.rmtree(group / "RNA" / "obsm")
    with pytest.raises(FileNotFoundError, match="transcriptCoords"):
        read_cosmx(pictures, tiledb=group, slide=1)
    shutil.rmtree(group / "RNA" / "var")
    with pytest.raises(FileNotFoundError, match="RNA"):
        read_cosmx(pictures, tiledb=group, slide=1)
    monkeypatch.setitem(__import__("sys").modules, "tiledb", None)
    with pytest.raises(ImportError, match=r"sst-editing\[tiledb\]"):
        read_cosmx(pictures, tiledb=group, slide=1)


# --- the real bundle -----------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_lung12_agrees(realdata: Path) -> None:
    sdata = read_cosmx(realdata / "cosmx_lung12" / "Lung12")
    said = sdata.attrs["sst"]["read"]
    assert said["y_axis"] == "up"
    assert min(said["agreement"].values()) > 0.995
    assert max(said["agreement_opposite"].values()) < 0.2
    table = sdata["table"]
    assert table.shape == (120, 960)
    assert table.obs["negative_probe_counts"].sum() > 0
    for key in ("F002", "F003"):
        points = sdata[f"{key}_points"].compute()
        labels = sdata[f"{key}_labels"].to_numpy()
        points = points[points["cell_id"] > 0]
        hit = (
            labels[np.floor(points["y"]).astype(int).clip(0, 647), np.floor(points["x"]).astype(int).clip(0, 671)]
            == points["cell_id"]
        )
        assert hit.mean() > 0.995
        counts = points.groupby(["cell_id", "gene"], observed=True).size()
        part = table[table.obs["fov"] == key]
        for cell, row in zip(part.obs["label"], part.X.toarray(), strict=True):
            mine = counts.get(cell, pd.Series(dtype=int)).reindex(table.var_names, fill_value=0)
            np.testing.assert_array_equal(row, mine)


@pytest.mark.realdata
def test_unprepared_lung12_says_what_is_missing(realdata: Path) -> None:
    with pytest.raises(FileNotFoundError, match="exprMat"):
        read_cosmx(realdata / "cosmx_lung12_raw" / "inst" / "Mini_datasets" / "CosMx" / "Raw")
