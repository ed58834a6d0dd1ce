"""Structural similarity."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

from sst._arguments import checked
from sst._validate import check_range

from ._images import as_image_pair, image_range

_CHUNK = 128


@checked
def ssim(
    x: np.ndarray,
    y: np.ndarray,
    *,
    data_range: float | None = None,
    per_channel: bool = False,
    window: int = 7,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> np.ndarray:
    """Mean structural similarity of each image, with a Gaussian window.

    The window's weights are a Gaussian cut off at ``window`` pixels and normalised; the mean runs over the positions at
    which the window lies wholly inside the image.

    Parameters
    ----------
    x, y
        Images n x c x h x w of one type (n x h x w: one channel).
    data_range
        Range of the values; ``None``: that of the integer type (255 for uint8).
    per_channel
        One value a channel instead of their mean.
    window, sigma
        Width in pixels (odd) and standard deviation of the Gaussian.
    k1, k2
        The constants of the definition.

    Returns
    -------
    n values, or n x c; 1 for equal images.

    Raises
    ------
    ValueError
        Shapes or types differ, the window is even or larger than the image, floats without ``data_range``.

    References
    ----------
    Wang et al., *Image quality assessment: from error visibility to structural similarity* (2004).
    """
    x, y = as_image_pair(x, y)
    peak = image_range(x, data_range)
    check_range("sigma", sigma, low=0, open_low=True)
    if window % 2 == 0 or not 1 <= window <= min(x.shape[2:]):
        msg = f"window={window!r}: an odd number of pixels, at most the image's {min(x.shape[2:])}."
        raise ValueError(msg)
    offset = np.arange(window) - window // 2
    weights = np.exp(-(offset**2) / (2 * sigma**2))
    weights /= weights.sum()
    values = np.empty(x.shape[:2])
    for i in range(0, len(x), _CHUNK):
        a, b = x[i : i + _CHUNK].astype(np.float64), y[i : i + _CHUNK].astype(np.float64)
        values[i : i + _CHUNK] = _map(a, b, weights, (k1 * peak) ** 2, (k2 * peak) ** 2).mean(axis=(2, 3))
    return values if per_channel else values.mean(axis=1)


def _map(a: np.ndarray, b: np.ndarray, weights: np.ndarray, c1: float, c2: float) -> np.ndarray:
    """The similarity at each valid position, b x c x (h - window + 1) x (w - window + 1)."""
    pad = len(weights) // 2

    def blur(image: np.ndarray) -> np.ndarray:
        rows = correlate1d(image, weights, axis=2)[:, :, pad : image.shape[2] - pad]
        return correlate1d(rows, weights, axis=3)[..., pad : image.shape[3] - pad]

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    return ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
