"""Peak signal-to-noise ratio."""

from __future__ import annotations

import numpy as np

from sst._arguments import checked

from ._images import as_image_pair, image_range

_CHUNK = 512


@checked
def psnr(x: np.ndarray, y: np.ndarray, *, data_range: float | None = None, per_channel: bool = False) -> np.ndarray:
    r"""Peak signal-to-noise ratio of each image, :math:`10 \log_{10}(R^2 / \mathrm{MSE})` in decibels.

    Parameters
    ----------
    x, y
        Images n x c x h x w of one type (n x h x w: one channel).
    data_range
        R; ``None``: that of the integer type (255 for uint8).
    per_channel
        One value a channel instead of one over all channels.

    Returns
    -------
    n values, or n x c; infinite for equal images.

    Raises
    ------
    ValueError
        Shapes or types differ; floats without ``data_range``.
    """
    x, y = as_image_pair(x, y)
    peak = image_range(x, data_range)
    errors = np.empty(x.shape[:2])
    for i in range(0, len(x), _CHUNK):
        gap = x[i : i + _CHUNK].astype(np.float64) - y[i : i + _CHUNK]
        errors[i : i + _CHUNK] = (gap**2).mean(axis=(2, 3))
    mse = errors if per_channel else errors.mean(axis=1)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(peak**2 / mse)
