"""Affine maps between the coordinates of elements, as 3 x 3 matrices on (x, y)."""

from __future__ import annotations

from typing import Any

import numpy as np

from sst._validate import describe_options


def affine(element: Any, name: str, coordinate_system: str) -> np.ndarray:
    """3 x 3 matrix (x, y) from an element's own coordinates to the coordinate system."""
    from spatialdata.transformations import get_transformation

    known = get_transformation(element, get_all=True)
    if coordinate_system not in known:
        msg = f"element {name!r} has no transformation to {coordinate_system!r}. {describe_options(known)}"
        raise KeyError(msg)
    return np.asarray(known[coordinate_system].to_affine_matrix(("x", "y"), ("x", "y")), dtype=np.float64)


def to_system(xy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a 3 x 3 affine matrix to points n x 2."""
    return np.asarray(xy, dtype=np.float64) @ matrix[:2, :2].T + matrix[:2, 2]
