from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale, get_transformation

import sst
from sst.io.crops._paste import paste_crops
from sst.io.crops._windows import window_corners

SIZE = 20


@pytest.fixture
def slide() -> tuple[sd.SpatialData, ad.AnnData]:
    """A slide of 160 x 120 px, 0.5 um each, and five cells; crops at another size."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 1000, (3, 120, 160)).astype(np.uint16)
    image = Image2DModel.parse(
        picture,
        dims=("c", "y", "x"),
        c_coords=["A", "B", "C"],
        transformations={"global": Scale([0.5, 0.5], ("x", "y"))},
    )
    sdata = sd.SpatialData(images={"picture": image})
    centres = np.array([[40.5, 30.2], [52.0, 30.0], [100.9, 60.1], [3.0, 3.0], [130.0, 100.0]])
    adata = ad.AnnData(
        np.ones((5, 2), np.float32),
        obs=pd.DataFrame({"condition": pd.Categorical(["n"] * 4 + ["t"])}, index=list("abcde")),
    )
    adata.obsm["spatial_px"] = centres
    adata.obsm["edited"] = np.full((5, 2, 32, 32), np.arange(5)[:, None, None, None] * 50, np.uint8)
    adata.uns["crops"] = {
        "channels": ["C", "A"],
        "size": SIZE,
        "limits": {
            "groupby": "condition",
            "low": {"n": [100, 0], "t": [0, 0]},
            "high": {"n": [900, 800], "t": [1000, 1000]},
            "shared_low": [0, 0],
            "shared_high": [1000, 1000],
        },
    }
    return sdata, adata


def expected_background(sdata: sd.SpatialData) -> np.ndarray:
    picture = sdata["picture"].to_numpy().astype(float)
    scaled = [np.clip(picture[2], 100, 900) / 1000 * 255, np.clip(picture[0], 0, 800) / 1000 * 255]
    return np.rint(scaled).astype(np.uint8)


def test_cells_lie_where_they_were(slide: tuple) -> None:
    sdata, adata = slide
    sst.tl.write_region(sdata, adata, bounds=(20, 10, 140, 90), subset={"condition": ["n"]}, feather=0)
    region = sdata["edited_region"]
    canvas = region.to_numpy()
    assert canvas.shape == (2, 80, 120)
    assert list(region.coords["c"].values) == ["C", "A"]
    background = expected_background(sdata)[:, 10:90, 20:140]
    x, y = window_corners(np.array([[100.9, 60.1]]), SIZE)[0] - [20, 10]
    alone = canvas[:, y : y + SIZE, x : x + SIZE]
    assert (alone == 100).all()  # the third cell, to the pixel
    changed = np.zeros(canvas.shape[1:], bool)
    for corner in window_corners(adata.obsm["spatial_px"][:3], SIZE) - [20, 10]:
        changed[corner[1] : corner[1] + SIZE, corner[0] : corner[0] + SIZE] = True
    np.testing.assert_array_equal(canvas[:, ~changed], background[:, ~changed])
    matrix = get_transformation(region, "global").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(matrix @ [x, y, 1], [(x + 20) / 2, (y + 10) / 2, 1])
    assert adata.uns["edited_region"]["params"]["n_cells"] == 3


def test_own_crops_change_nothing_but_rounding(slide: tuple) -> None:
    sdata, adata = slide
    background = expected_background(sdata)
    corners = window_corners(adata.obsm["spatial_px"], SIZE)
    inside = [0, 1, 2, 4]
    crops = np.stack([background[:, y : y + SIZE, x : x + SIZE] for x, y in corners[inside]])
    for feather in (0, 0.3, 1):
        out = paste_crops(background, crops, corners[inside], SIZE, feather=feather)
        assert np.abs(out.astype(int) - background).max() <= 1


def test_seams_are_smooth_and_nearest_cell_wins() -> None:
    background = np.zeros((1, 60, 80), np.uint8)
    crops = np.array([100, 200], np.uint8)[:, None, None, None] * np.ones((1, 1, 40, 40), np.uint8)
    out = paste_crops(background, crops, np.array([[5, 10], [25, 10]]), 40, feather=0.5)[0].astype(int)
    row = out[30]
    assert np.abs(np.diff(row)).max() <= 32
    assert row[0] == 0
    assert row[18] == pytest.approx(100, abs=3)
    assert row[52] == pytest.approx(200, abs=3)
    assert row[35] == pytest.approx(150, abs=12)  # half way between both centres


def test_field_of_view_pictures(slide: tuple) -> None:
    sdata, adata = slide
    picture = sdata["picture"]
    sdata.images["1_image"], sdata.images["2_image"] = picture, picture
    adata.obs["fov"] = ["1", "1", "2", "2", "2"]
    with pytest.raises(ValueError, match="say which with fov"):
        sst.tl.write_region(sdata, adata, subset={"condition": ["n"]})
    sst.tl.write_region(sdata, adata, subset={"condition": ["n"]}, fov=1, key_added="one")
    assert adata.uns["one"]["params"]["image"] == "1_image"
    assert adata.uns["one"]["params"]["n_cells"] == 2


def test_errors(slide: tuple) -> None:
    sdata, adata = slide
    with pytest.raises(ValueError, match="several groups"):
        sst.tl.write_region(sdata, adata)
    normal = {"condition": ["n"]}
    with pytest.raises(ValueError, match="hold none"):
        sst.tl.write_region(sdata, adata, bounds=(140, 0, 160, 20), subset=normal)
    with pytest.raises(ValueError, match="outside the picture"):
        sst.tl.write_region(sdata, adata, bounds=(500, 500, 510, 510), subset=normal)
    with pytest.raises(ValueError, match="x0 < x1"):
        sst.tl.write_region(sdata, adata, bounds=(10, 0, 5, 20), subset=normal)
    with pytest.raises(KeyError, match="nothing"):
        sst.tl.write_region(sdata, adata, key="nothing")
    del adata.uns["crops"]["limits"]
    with pytest.raises(ValueError, match="rescale_intensity"):
        sst.tl.write_region(sdata, adata, subset=normal)
