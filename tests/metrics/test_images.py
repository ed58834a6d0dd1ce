from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sst.metrics import psnr, ssim


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (5, 2, 8, 8)).repeat(4, 2).repeat(4, 3)  # 5 x 2 x 32 x 32
    x = np.clip(base + rng.normal(0, 5, base.shape), 0, 255).astype(np.uint8)
    y = np.clip(base + rng.normal(0, 25, base.shape), 0, 255).astype(np.uint8)
    return x, y


def test_psnr_equals_scikit_image(pair):
    x, y = pair
    np.testing.assert_allclose(
        psnr(x, y), [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(x, y, strict=True)]
    )
    each = psnr(x, y, per_channel=True)
    assert each.shape == (5, 2)
    assert each[3, 1] == pytest.approx(peak_signal_noise_ratio(x[3, 1], y[3, 1], data_range=255))
    assert np.isinf(psnr(x, x)).all()


@pytest.mark.parametrize("sigma", [1.5, 0.9])
def test_ssim_equals_scikit_image(pair, sigma):
    x, y = pair
    window = 2 * int(3.5 * sigma + 0.5) + 1
    options = {"gaussian_weights": True, "sigma": sigma, "use_sample_covariance": False, "data_range": 255}
    expected = [
        [structural_similarity(a, b, **options) for a, b in zip(p, q, strict=True)] for p, q in zip(x, y, strict=True)
    ]
    got = ssim(x, y, window=window, sigma=sigma, per_channel=True)
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    np.testing.assert_allclose(ssim(x, y, window=window, sigma=sigma), np.mean(expected, axis=1), rtol=1e-9)


def test_ssim_equals_torchmetrics(pair):
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    x, y = pair
    _, everywhere = reference(
        torch.tensor(x, dtype=torch.float64),
        torch.tensor(y, dtype=torch.float64),
        data_range=255.0,
        reduction="none",
        return_full_image=True,
    )
    # torchmetrics also averages over windows that reach past the border; ours are the positions inside
    np.testing.assert_allclose(ssim(x, y, window=11), everywhere[..., 5:-5, 5:-5].mean((1, 2, 3)), rtol=1e-6)


def test_ssim_default_window_against_a_slow_reference(pair):
    x, y = (p[0, 0].astype(float) for p in pair)
    offset = np.arange(-3, 4)
    g = np.exp(-(offset**2) / (2 * 1.5**2))
    weights = np.outer(g, g) / np.outer(g, g).sum()
    values = []
    for i in range(32 - 6):
        for j in range(32 - 6):
            a, b = x[i : i + 7, j : j + 7], y[i : i + 7, j : j + 7]
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb, cov = (
                (weights * (a - ma) ** 2).sum(),
                (weights * (b - mb) ** 2).sum(),
                (weights * (a - ma) * (b - mb)).sum(),
            )
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert ssim(pair[0], pair[1], per_channel=True)[0, 0] == pytest.approx(np.mean(values), rel=1e-9)
    np.testing.assert_allclose(ssim(pair[0], pair[0]), 1)


def test_single_channel_uint16_and_errors(pair):
    x, y = pair
    wide = psnr(x[:, 0].astype(np.uint16), y[:, 0].astype(np.uint16))
    assert wide.shape == (5,)
    np.testing.assert_allclose(wide - psnr(x[:, :1], y[:, :1]), 20 * np.log10(65535 / 255))
    with pytest.raises(ValueError, match="one shape"):
        psnr(x, y[:3])
    with pytest.raises(ValueError, match="data_range"):
        ssim(x / 255, y / 255)
    with pytest.raises(ValueError, match="window=8"):
        ssim(x, y, window=8)
    with pytest.raises(ValueError, match="one type"):
        psnr(x, y.astype(np.uint16))
    with pytest.raises(TypeError, match="numbers"):
        psnr(x.astype(str), y.astype(str))
