"""Checks of image stacks that the image metrics share."""

from __future__ import annotations

import numpy as np


def as_images(x: np.ndarray, name: str = "images") -> np.ndarray:
    """Return ``x`` as an n x c x h x w array; n x h x w gains its channel axis.

    Raises
    ------
    TypeError
        Not numbers.
    ValueError
        Another number of axes.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        msg = f"{name}: expected numbers, got {x.dtype}."
        raise TypeError(msg)
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4:
        msg = f"{name}: expected n x c x h x w, got shape {x.shape}."
        raise ValueError(msg)
    return x


def as_image_pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check that two stacks have one shape and one type.

    Raises
    ------
    ValueError
        Shapes differ, or one stack holds 8-bit and the other something else (a metric over both would be meaningless).
    """
    x, y = as_images(x, "x"), as_images(y, "y")
    if x.shape != y.shape:
        msg = f"x and y must have one shape, got {x.shape} and {y.shape}."
        raise ValueError(msg)
    if x.dtype != y.dtype:
        msg = f"x and y must have one type, got {x.dtype} and {y.dtype}."
        raise ValueError(msg)
    return x, y


def image_range(x: np.ndarray, data_range: float | None) -> float:
    """The range of values: as given, or that of the integer type.

    Raises
    ------
    ValueError
        Floats without ``data_range``.
    """
    if data_range is not None:
        return float(data_range)
    if x.dtype.kind in "iu":
        info = np.iinfo(x.dtype)
        return float(info.max - max(info.min, 0))
    msg = f"data_range is needed for {x.dtype} images (255 for 8-bit values)."
    raise ValueError(msg)
