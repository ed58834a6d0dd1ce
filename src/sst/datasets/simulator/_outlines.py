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
            reach += 0.25  # the border lies between the last point inside and the next
            out_x[k, c], out_y[k, c] = x[k] + reach * dx, y[k] + reach * dy
    return out_x, out_y


def inner_points(labels: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The labels 1 .. n that have pixels, and a point inside each: (x, y) where that is on it, else its pixel nearest to it."""
    height, width = labels.shape
    n = len(x)
    column, row = np.floor(x).astype(int).clip(0, width - 1), np.floor(y).astype(int).clip(0, height - 1)
    x, y = x.clip(0.5, width - 0.5), y.clip(0.5, height - 0.5)
    keep = labels[row, column] == np.arange(1, n + 1)
    for k in np.flatnonzero(~keep):
        rows, columns = np.nonzero(labels == k + 1)
        if len(rows):
            at = np.argmin((rows + 0.5 - y[k]) ** 2 + (columns + 0.5 - x[k]) ** 2)
            x[k], y[k], keep[k] = columns[at] + 0.5, rows[at] + 0.5, True
    wanted = np.flatnonzero(keep) + 1
    return wanted, x[keep], y[keep]
