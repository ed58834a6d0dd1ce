"""Polygons around cells and nuclei, as the vendors give them."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

CORNERS = 24


@njit(cache=True)
def trace(mask: np.ndarray, wanted: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Star-shaped outline of each label, seen from a point inside it.

    Parameters
    ----------
    mask
        Labels, y x x.
    wanted
        Labels to outline, n.
    x, y
        A point inside each, px.

    Returns
    -------
    n x 24 corners' x and y (px), at equal angles; where the label ends first along the ray.
    """
    height, width = mask.shape
    out_x, out_y = np.empty((len(wanted), CORNERS)), np.empty((len(wanted), CORNERS))
    for k in range(len(wanted)):
        for c in range(CORNERS):
            angle = 2 * math.pi * c / CORNERS
            dx, dy = math.cos(angle), math.sin(angle)
            reach = 0.0
            while reach < 400.0:
                i, j = int(math.floor(y[k] + (reach + 0.5) * dy)), int(math.floor(x[k] + (reach + 0.5) * dx))
                if i < 0 or j < 0 or i >= height or j >= width or mask[i, j] != wanted[k]:
                    break
                reach += 0.5
            out_x[k, c], out_y[k, c] = x[k] + reach * dx, y[k] + reach * dy
    return out_x, out_y
