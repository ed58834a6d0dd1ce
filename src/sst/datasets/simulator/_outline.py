"""Outlines of plain nuclei in closed form: ellipses with harmonics."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def outlines(cells: np.ndarray) -> np.ndarray:
    """What :func:`outline` needs of each cell: axes and harmonics, scaled so that the area is exactly the cell's."""
    out = np.empty((cells.shape[0], 12))
    for k in range(cells.shape[0]):
        c = cells[k]
        size = math.sqrt(c[4] / math.pi)
        out[k, 0], out[k, 1] = math.cos(c[6]), math.sin(c[6])
        out[k, 2], out[k, 3] = 1.0 / (size * math.sqrt(c[5])), math.sqrt(c[5]) / size
        norm = 1.0 / math.sqrt(1.0 + 0.5 * (c[7] * c[7] + c[9] * c[9] + c[11] * c[11]))
        out[k, 4] = norm
        for h in range(3):
            out[k, 5 + 2 * h] = norm * c[7 + 2 * h] * math.cos(c[8 + 2 * h])
            out[k, 6 + 2 * h] = norm * c[7 + 2 * h] * math.sin(c[8 + 2 * h])
        out[k, 11] = size
    return out


@njit(cache=True)
def outline(dx: float, dy: float, o: np.ndarray) -> tuple[float, float]:
    """Radius of a point in units of the nucleus's outline in its direction, and of the outline there in px.

    The outline is an ellipse whose radius is modulated by harmonics 2 to 4 of the angle: a_k cos(k phi + p_k).
    """
    u, v = (dx * o[0] + dy * o[1]) * o[2], (-dx * o[1] + dy * o[0]) * o[3]
    rho = math.sqrt(u * u + v * v)
    if rho < 1e-6:
        return rho, o[11]
    c1, s1 = u / rho, v / rho
    c2, s2 = c1 * c1 - s1 * s1, 2.0 * c1 * s1
    c3, s3 = c2 * c1 - s2 * s1, s2 * c1 + c2 * s1
    c4, s4 = c2 * c2 - s2 * s2, 2.0 * c2 * s2
    wave = o[4] + o[5] * c2 - o[6] * s2 + o[7] * c3 - o[8] * s3 + o[9] * c4 - o[10] * s4
    rho /= wave
    return rho, math.sqrt(dx * dx + dy * dy) / rho
