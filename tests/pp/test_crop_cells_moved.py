"""Crops of an object that was queried, moved or shrunk are those of the object as it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import (
    Affine,
    Scale,
    Sequence,
    Translation,
    get_transformation,
    set_transformation,
)

from sst.datasets import simulate_tissue
from sst.pp import crop_cells, read_cosmx, read_xenium, rescale_intensity
from sst.tl import write_region

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = 24
AXES = ("x", "y")
KINDS = ["fov", "fov-down", "stitched", "nucleus", "cell", "xenium-1.0"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tissue = simulate_tissue(n_cells=120, n_genes=18, fovs=3, seed=3)
    root = tmp_path_factory.mktemp("slides")
    return {
        "up": tissue.write_cosmx(root / "up", layout="flat", y_up=True)[0],
        "down": tissue.write_cosmx(root / "down", layout="atomx", y_up=False, positions="mm")[0],
        "2": tissue.write_xenium(root / "x", version="3.0.0")[0],
        "1": tissue.write_xenium(root / "x1", version="1.0.1")[0],
    }


def read(folders: dict[str, Path], kind: str) -> tuple[sd.SpatialData, dict]:
    how: dict = {"size": SIZE, "output_size": SIZE}
    if kind in ("nucleus", "cell", "xenium-1.0"):
        how["center"] = "cell" if kind == "cell" else "nucleus"
        bare = kind == "xenium-1.0"
        return read_xenium(folders["1" if bare else "2"], boundaries=not bare), how
    return read_cosmx(folders["down" if kind == "fov-down" else "up"], stitch=kind == "stitched"), how


def same(moved, whole, *, least=3, place=True) -> None:
    """The cells of ``moved`` have the crops, counts and places that they have in ``whole``."""
    assert moved.n_obs >= least
    there = whole[moved.obs_names]
    np.testing.assert_array_equal(np.asarray(moved.obsm["crops"]), np.asarray(there.obsm["crops"]))
    assert (moved.X != there.X).nnz == 0
    if place:
        np.testing.assert_allclose(moved.obsm["spatial"], there.obsm["spatial"], atol=1e-4)


def bounds(whole) -> tuple[np.ndarray, np.ndarray]:
    xy = whole.obsm["spatial"]
    return xy.min(axis=0), xy.max(axis=0)


def test_points_of_a_mosaic_have_names_of_their_own(folders: dict[str, Path]) -> None:
    points = read(folders, "stitched")[0].points["points"].compute()
    assert points.index.is_unique


def query(sdata: sd.SpatialData, low, high) -> sd.SpatialData:
    return sd.bounding_box_query(
        sdata, axes=AXES, min_coordinate=list(low), max_coordinate=list(high), target_coordinate_system="global"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_any_query_leaves_crops_as_they_are(folders: dict[str, Path], kind: str) -> None:
    sdata, how = read(folders, kind)
    whole = crop_cells(sdata, **how)
    low, high = bounds(whole)
    kept = 0
    for seed in range(5):  # corners fall anywhere within a pixel
        rng = np.random.default_rng(seed)
        a = low + rng.uniform(0.0, 0.25, 2) * (high - low)
        b = high - rng.uniform(0.0, 0.25, 2) * (high - low)
        part = crop_cells(query(sdata, a, b), **how)
        same(part, whole, least=1)
        kept += part.n_obs
    assert kept > 60
    if "fov" in kind or kind == "stitched":  # a query of a query: the labels tell
        part = query(query(sdata, low + 5.1, high - 5), low + 11.3, high - 7.7)
        same(crop_cells(part, **how), whole, least=1)


@pytest.mark.parametrize("kind", ["fov", "stitched"])
def test_real_crops_painted_into_a_queried_image_change_nothing(folders: dict[str, Path], kind: str) -> None:
    sdata, how = read(folders, kind)
    adata = crop_cells(sdata, **how, channels=["DAPI"])
    rescale_intensity(adata)
    low, high = bounds(adata)
    part = query(sdata, low + 0.2 * (high - low), high)
    fov = str(adata.obs["fov"].iloc[-1])
    write_region(part, adata, key="crops", key_added="painted", fov=fov if kind == "fov" else None)
    picture = part.images[f"{fov}_image" if kind == "fov" else "image"].sel(c="DAPI").to_numpy()
    x0, y0, x1, y1 = adata.uns["painted"]["params"]["bounds"]
    limits = adata.uns["crops"]["limits"]
    expected = np.clip(picture[y0:y1, x0:x1], limits["low"]["all"][0], limits["high"]["all"][0]).astype(float)
    expected = np.rint(
        (expected - limits["shared_low"][0]) * 255 / (limits["shared_high"][0] - limits["shared_low"][0])
    )
    np.testing.assert_allclose(part.images["painted"].to_numpy()[0], expected, atol=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("move", ["shift", "scale", "turn", "mirror"])
def test_moving_every_element_leaves_crops_as_they_are(folders: dict[str, Path], kind: str, move: str) -> None:
    sdata, how = read(folders, kind)
    whole = crop_cells(sdata, **how)
    angle = 0.3
    step = {
        "shift": Translation([1234.56, -77.7], AXES),
        "scale": Scale([3.7, 3.7], AXES),
        "turn": Affine(
            np.array([[np.cos(angle), -np.sin(angle), 5], [np.sin(angle), np.cos(angle), 7], [0, 0, 1]]), AXES, AXES
        ),
        "mirror": Affine(np.array([[-1.0, 0, 5], [0, 1, 0], [0, 0, 1]]), AXES, AXES),
    }[move]
    matrix = step.to_affine_matrix(AXES, AXES)
    for _, name, element in list(sdata.gen_spatial_elements()):
        if name != "cell_crops":
            set_transformation(element, Sequence([get_transformation(element, "global"), step]), "global")
            set_transformation(element, get_transformation(element, "global"), "aligned")
    for system in ("global", "aligned"):
        moved = crop_cells(sdata, coordinate_system=system, **how)
        same(moved, whole, least=whole.n_obs, place=False)
        expected = whole.obsm["spatial"] @ matrix[:2, :2].T + matrix[:2, 2]
        np.testing.assert_allclose(moved.obsm["spatial"], expected, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_points_and_shapes_in_new_coordinates(folders: dict[str, Path], kind: str) -> None:
    """Transcripts and shapes whose own coordinates were changed, their places kept."""
    sdata, how = read(folders, kind)
    whole = crop_cells(sdata, **how)
    for name in list(sdata.points):
        sdata.points[name] = sd.transform(sdata.points[name], to_coordinate_system="global")
    for name in list(sdata.shapes):
        sdata.shapes[name] = sd.transform(sdata.shapes[name], to_coordinate_system="global")
    moved = crop_cells(sdata, **how)
    moved = moved[moved.obs_names.isin(whole.obs_names)]
    assert moved.n_obs >= whole.n_obs - 2
    there = whole[moved.obs_names]
    away = np.abs(np.floor(moved.obsm["spatial_px"]) - np.floor(there.obsm["spatial_px"])).max(axis=1)
    assert away.max() <= 1  # the mean of a polygon's vertices counts its closing vertex once, the vendor's table twice
    assert (away > 0).mean() < 0.3
    same(moved[away == 0], whole)


@pytest.mark.parametrize("kind", KINDS)
def test_half_resolution(folders: dict[str, Path], kind: str) -> None:
    """The level below has half as many pixels: windows of half the size hold the same transcripts."""
    sdata, how = read(folders, kind)
    full = crop_cells(sdata, **how | {"center": "cell", "pad": True})
    for model, elements in ((Image2DModel, sdata.images), (Labels2DModel, sdata.labels)):
        for name in list(elements):
            element = elements[name]
            element = element["scale0"]["image"] if hasattr(element, "children") else element
            to = {
                k: Sequence([Scale([2, 2], AXES), t])
                for k, t in get_transformation(elements[name], get_all=True).items()
            }
            extra = {"c_coords": list(element.coords["c"].values)} if "c" in element.dims else {}
            data = element.data[..., : element.shape[-2] // 2 * 2 : 2, : element.shape[-1] // 2 * 2 : 2]
            elements[name] = model.parse(data, dims=element.dims, transformations=to, **extra)
    half = crop_cells(sdata, **how | {"center": "cell", "pad": True, "size": SIZE // 2, "output_size": SIZE // 2})
    assert half.n_obs == full.n_obs
    np.testing.assert_allclose(half.obsm["spatial"], full.obsm["spatial"], atol=1e-4)
    np.testing.assert_allclose(half.obsm["spatial_px"], full.obsm["spatial_px"] / 2, atol=1e-5)
    # a window of 12 large pixels begins at an even pixel: cells whose window of 24 does too have the same crop
    even = (np.floor(full.obsm["spatial_px"]).astype(int) % 2 == 0).all(axis=1)
    assert even.sum() > 3
    crops = np.asarray(full.obsm["crops"])[even]
    np.testing.assert_array_equal(np.asarray(half.obsm["crops"])[even], crops[:, :, ::2, ::2])
    assert (half.X[even] != full.X[even]).nnz == 0
    assert half.uns["crops"]["pixel_size"] == pytest.approx(2 * full.uns["crops"]["pixel_size"])


@pytest.mark.parametrize("kind", ["fov", "stitched", "cell"])
def test_pixels_of_another_scale_are_not_used(folders: dict[str, Path], kind: str) -> None:
    """A foreign table whose ``x_px`` are of another image than the one that is there."""
    sdata, how = read(folders, kind)
    sdata.attrs.clear()
    table = sdata.tables["table"]
    for name in ("x_nucleus_um", "y_nucleus_um"):
        if name in table.obs:
            del table.obs[name]
    del table.obsm["spatial"]
    right = crop_cells(sdata, **how | {"center": "cell"})
    table.obs[["x_px", "y_px"]] *= 2
    found = crop_cells(sdata, **how | {"center": "cell"})
    both = found.obs_names.intersection(right.obs_names)
    away = np.abs(found[both].obsm["spatial_px"] - right[both].obsm["spatial_px"]).max(axis=1)
    assert len(both) > 0.8 * right.n_obs
    assert np.median(away) < 6  # px, of 35 to the next cell
    assert "labels" in found.uns["crops"]["params"]["centres"]
