from __future__ import annotations

import importlib

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from sst.metrics import nucleus_features


def _ellipse(size, cy, cx, r, aspect, angle, fine=4):
    """Coverage (0..1) of each pixel by an ellipse of area pi r^2."""
    g = (np.arange(size * fine) + 0.5) / fine
    y, x = g[:, None] - cy, g[None] - cx
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    inside = (u / (r * aspect**0.5)) ** 2 + (v / (r / aspect**0.5)) ** 2 < 1
    return inside.reshape(size, fine, size, fine).mean((1, 3))


def _crops(n, size, fraction, *, neighbours=0, noise=0.02, seed=0):
    """Nuclei of radius ``fraction`` of the side, blurred, with touching neighbours; n x 1 x h x w uint8, and areas."""
    rng = np.random.default_rng(seed)
    images, areas = [], []
    for _ in range(n):
        r = fraction * size * rng.uniform(0.85, 1.15)
        cy, cx = size / 2 + rng.uniform(-0.03, 0.03, 2) * size
        own = _ellipse(size, cy, cx, r, rng.uniform(1, 1.4), rng.uniform(0, 3))
        image = np.maximum(0.08, own * rng.uniform(0.5, 1))
        for _ in range(neighbours):
            angle, away = rng.uniform(0, 2 * np.pi), r * rng.uniform(2.0, 2.6)
            other = _ellipse(
                size, cy + away * np.sin(angle), cx + away * np.cos(angle), r * 0.9, 1.1, rng.uniform(0, 3)
            )
            image = np.maximum(image, other * rng.uniform(0.5, 1))
        image = ndimage.gaussian_filter(image, 0.012 * size) + rng.normal(0, noise, image.shape)
        images.append(image)
        areas.append(own.sum())
    return (np.clip(images, 0, 1.2) * 200).astype(np.uint8)[:, None], np.asarray(areas)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("neighbours", [0, 2])
def test_area_against_drawn_nuclei(size, neighbours):
    images, truth = _crops(40, size, 0.2, neighbours=neighbours)
    area = nucleus_features(images).nucleus_area_px
    assert np.median(area) == pytest.approx(np.median(truth), rel=0.05)
    assert np.mean(np.abs(area / truth - 1) < 0.15) > 0.85


@pytest.mark.realdata
def test_area_on_real_nuclei(realdata):
    import tifffile

    image = tifffile.imread(realdata / "nuclei_dsb" / "img2d.tif")
    labels = tifffile.imread(realdata / "nuclei_dsb" / "mask2d.tif")
    for size in (48, 64, 96):
        half = size // 2
        inside = [r for r in regionprops(labels) if half <= min(r.centroid) and max(r.centroid) <= 511 - half]
        corners = [(int(r.centroid[0]) - half, int(r.centroid[1]) - half) for r in inside]
        crops = np.stack([image[y : y + size, x : x + size] for y, x in corners])
        area = nucleus_features(crops).nucleus_area_px
        truth = np.median([r.area for r in inside])
        assert np.nanmedian(area) == pytest.approx(truth, rel=0.10)


@pytest.mark.realdata
def test_trusted_nuclei_are_ranked_as_their_masks(realdata):
    import tifffile
    from scipy.stats import spearmanr

    image = tifffile.imread(realdata / "nuclei_dsb" / "img2d.tif")
    labels = tifffile.imread(realdata / "nuclei_dsb" / "mask2d.tif")
    inside = [r for r in regionprops(labels) if min(r.centroid) >= 32 and max(r.centroid) <= 479]
    corners = [(int(r.centroid[0]) - 32, int(r.centroid[1]) - 32) for r in inside]
    frame = nucleus_features(np.stack([image[y : y + 64, x : x + 64] for y, x in corners]))
    truth = np.array([r.area for r in inside])
    ok = frame.nucleus_ok.to_numpy()
    assert ok.mean() > 0.6
    assert spearmanr(frame.nucleus_area_px[ok], truth[ok])[0] > 0.8
    assert spearmanr(frame.nucleus_area_px, truth)[0] < spearmanr(frame.nucleus_area_px[ok], truth[ok])[0]


def test_two_joined_nuclei_are_cut_and_a_blur_is_doubtful():
    y, x = np.mgrid[:64, :64] - 31.5
    pair = np.maximum(np.hypot(y, x) < 9, np.hypot(y, x - 17) < 9) * 150.0 + 20
    haze = 20 + 150 * np.exp(-(y**2 + x**2) / (2 * 14**2))
    images = np.stack([ndimage.gaussian_filter(pair, 1), haze]).astype(np.uint8)[:, None]
    frame = nucleus_features(images)
    assert frame.nucleus_area_px[0] == pytest.approx(np.pi * 81, rel=0.15)
    assert list(frame.nucleus_ok) == [True, False]


def test_shape_against_scikit_image():
    size = 128
    masks = np.stack([_ellipse(size, 64, 64, 24, a, 0.7) > 0.5 for a in (1.0, 1.5, 2.5)])
    masks[2, 60:68, :64] = False  # a notch
    images = np.where(masks, 100, 10).astype(np.uint16)[:, None]
    frame = nucleus_features(images, masks=masks, channels=["DAPI"])
    for i, mask in enumerate(masks):
        r = regionprops(mask.astype(int))[0]
        assert frame.nucleus_area_px[i] == r.area
        assert frame.nucleus_eccentricity[i] == pytest.approx(r.eccentricity, abs=1e-3)
        assert frame.nucleus_solidity[i] == pytest.approx(r.solidity, abs=0.03)
    assert (frame["DAPI_nucleus_mean"] == 100).all()
    assert (frame["nucleus_texture"] == 0).all()


def test_intensities_by_hand():
    y, x = np.mgrid[:64, :64] - 31.5
    mask = np.hypot(y, x) < 12
    image = np.zeros((1, 2, 64, 64), np.uint16)
    image[0, 1] = 20 + 300 * mask
    image[0, 0] = np.where(mask, 7, 3)
    frame = nucleus_features(
        image, nucleus_channel=1, channels=["B2M", "DAPI"], ring=4, masks=mask[None], pixel_size=0.5
    )
    ring = (ndimage.distance_transform_edt(~mask) <= 4) & ~mask
    row = frame.iloc[0]
    assert row["B2M_nucleus_mean"] == 7
    assert row["B2M_nucleus_total"] == 7 * mask.sum()
    assert row["B2M_ring_mean"] == 3
    assert row["DAPI_ring_total"] == 20 * ring.sum()
    assert row["DAPI_window_mean"] == pytest.approx(image[0, 1].mean())
    assert row["nucleus_area"] == pytest.approx(mask.sum() / 4)
    assert frame.attrs["area_unit"] == "um2"
    segmented = nucleus_features(image, nucleus_channel=1, channels=["CD298/B2M", "DAPI"], ring=4).iloc[0]
    assert segmented["nucleus_area"] == pytest.approx(mask.sum(), rel=0.04)
    assert segmented["CD298-B2M_nucleus_mean"] == pytest.approx(7, abs=0.2)


def test_texture_follows_the_stain():
    images, _ = _crops(1, 128, 0.25, noise=0)
    rng = np.random.default_rng(0)
    rough = np.clip(images + rng.normal(0, 20, images.shape) * (images > 60), 0, 255).astype(np.uint8)
    a, b = nucleus_features(images).iloc[0], nucleus_features(rough).iloc[0]
    assert b.nucleus_grain > 3 * a.nucleus_grain
    assert b.nucleus_texture > a.nucleus_texture


def test_failures_are_counted_not_raised():
    good, _ = _crops(2, 32, 0.2)
    rng = np.random.default_rng(0)
    noise = rng.poisson(20, (5, 1, 32, 32)).astype(np.uint8)
    blank = np.zeros((3, 1, 32, 32), np.uint8)
    full = np.full((1, 1, 32, 32), 200, np.uint8)
    corner = np.zeros((1, 1, 32, 32), np.uint8)
    corner[..., :6, :6] = 200
    frame = nucleus_features(np.concatenate([good, noise, blank, full, corner]))
    assert frame.attrs["counts"] == {"ok": 2, "border": 0, "empty": 9, "no_nucleus": 1, "invalid": 0}
    assert frame.nucleus_area[2:].isna().all()
    assert frame["0_window_mean"].notna().all()
    nan = good.astype(float)
    nan[1, 0, 3, 3] = np.nan
    frame = nucleus_features(nan)
    assert list(frame.nucleus_status) == ["ok", "invalid"]
    assert np.isnan(frame["0_window_mean"][1])
    assert len(nucleus_features(good[:0])) == 0


def test_processes_give_the_same_answer(monkeypatch):
    monkeypatch.setattr(importlib.import_module("sst.metrics._nucleus_features"), "_CHUNK", 7)
    images, _ = _crops(20, 32, 0.2)
    seen = []
    one = nucleus_features(images, n_jobs=1, progress=seen.append)
    two = nucleus_features(images, n_jobs=2)
    assert one.equals(two)
    assert sum(seen) == 20


def test_wrong_input_is_named():
    images, _ = _crops(2, 32, 0.2)
    with pytest.raises(ValueError, match=r"nucleus_channel=1"):
        nucleus_features(images, nucleus_channel=1)
    with pytest.raises(ValueError, match=r"1 channels"):
        nucleus_features(images, channels=["a", "b"])
    with pytest.raises(ValueError, match="masks"):
        nucleus_features(images, masks=np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="n_jobs=0"):
        nucleus_features(images, n_jobs=0)
