"""Crops go back to where they were cut."""

from __future__ import annotations

import numpy as np
import pytest

from sst.io._crops_mosaic import paint_windows
from sst.io._crops_pixels import cut_windows


def scene(seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (2, 120, 140)).astype(np.uint8)
    corners = rng.integers(-10, 100, (30, 2))
    return image, corners


@pytest.mark.parametrize("feather", [0, 5, 12.5])
def test_real_crops_give_back_the_image(feather):
    """However the seams are drawn: crops of one image agree wherever they overlap."""
    image, corners = scene()
    picture, cover = paint_windows(cut_windows(image, corners, 32), corners, 32, (120, 140), feather=feather)
    seen = cover > 0
    np.testing.assert_allclose(picture[:, seen], (image * cover)[:, seen], atol=1e-3)
    assert (picture[:, ~seen] == 0).all()
    over, _ = paint_windows(cut_windows(image, corners, 32), corners, 32, (120, 140), feather=feather, base=image)
    np.testing.assert_allclose(over, image, atol=1e-3)


def test_a_part_of_the_picture_is_the_same():
    image, corners = scene(1)
    crops = cut_windows(image, corners, 32)[:, :, ::-1]  # not the image: seams matter
    whole, cover = paint_windows(crops, corners, 32, (120, 140), feather=6)
    part, part_cover = paint_windows(crops, corners, 32, (50, 40), origin=(60, 30), feather=6)
    np.testing.assert_allclose(part, whole[:, 30:80, 60:100], atol=1e-4)
    np.testing.assert_allclose(part_cover, cover[30:80, 60:100])


def test_pixels_belong_to_the_nearest_centre():
    crops = np.stack([np.full((1, 40, 40), 10.0), np.full((1, 40, 40), 90.0)])
    picture, cover = paint_windows(crops, np.array([[0, 0], [20, 0]]), 40, (40, 60), feather=2)
    row = picture[0, 20]
    np.testing.assert_allclose(row[5:25], 10, atol=0.5)
    np.testing.assert_allclose(row[36:55], 90, atol=0.5)
    assert 45 < row[29:31].mean() < 55  # the seam is half way
    assert (np.diff(row[5:55]) >= -1e-4).all()
    assert cover[20, 0] == pytest.approx(0.25)  # half a pixel inside, of two


def test_other_sizes_are_resized():
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.random((1, 200, 200)), axis=1), axis=2)
    image = (smooth / smooth.max() * 250).astype(np.float32)
    corners = np.array([[20, 30], [60, 30]])
    crops = cut_windows(image, corners, 80, 64)
    picture, cover = paint_windows(crops, corners, 80, (200, 200), feather=4)
    solid = cover == 1
    assert np.abs(picture[:, solid] - image[:, solid]).max() < 1


def test_wrong_base_is_named():
    image, corners = scene()
    with pytest.raises(ValueError, match="base has shape"):
        paint_windows(cut_windows(image, corners, 32), corners, 32, (120, 140), base=image[:1])
