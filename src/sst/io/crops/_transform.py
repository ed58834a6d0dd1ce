"""Affine maps between the coordinates of elements, as 3 x 3 matrices on (x, y)."""

from __future__ import annotations

from typing import Any

import numpy as np

from sst._validate import describe_options

_DECIMALS = 6  # of a pixel: the error of a chain of transformations must not move a whole number below itself


def affine(element: Any, name: str, coordinate_system: str) -> np.ndarray:
    """3 x 3 matrix (x, y) from an element's own coordinates to the coordinate system."""
    known = systems(element)
    if coordinate_system not in known:
        msg = f"element {name!r} has no transformation to {coordinate_system!r}. {describe_options(known)}"
        raise KeyError(msg)
    return np.asarray(known[coordinate_system].to_affine_matrix(("x", "y"), ("x", "y")), dtype=np.float64)


def systems(element: Any) -> dict[str, Any]:
    """Coordinate system -> transformation of an element."""
    from spatialdata.transformations import get_transformation

    return dict(get_transformation(element, get_all=True))


def inverse(matrix: np.ndarray, name: str) -> np.ndarray:
    """The inverse; ``ValueError`` if the transformation of element ``name`` has none."""
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:2, :2])) < 1e-12:
        msg = f"the transformation of {name!r} has no inverse: {matrix[:2].tolist()}."
        raise ValueError(msg)
    return np.linalg.inv(matrix)


def to_system(xy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a 3 x 3 affine matrix to points n x 2."""
    return np.asarray(xy, dtype=np.float64) @ matrix[:2, :2].T + matrix[:2, 2]


def to_pixels(xy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a matrix to pixels of an image: as :func:`to_system`, rounded to millionths of a pixel."""
    return np.round(to_system(xy, matrix), _DECIMALS)
