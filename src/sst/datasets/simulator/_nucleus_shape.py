"""Nuclei of full detail: outlines as a table of radii, in a frame that is turned and bent; one or two a cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    import pandas as pd

RADII = 64
# Columns of ``Nuclei.frame``.
X, Y, COS, SIN, BEND, MIDDLE = range(6)


@dataclass(frozen=True)
class Nuclei:
    """The nuclei of some cells.

    Attributes
    ----------
    cell
        Row of each nucleus's cell, n.
    frame
        n x 6: centre (px), cosine and sine of the axis, bend (1/px) and its mean over the nucleus (px).
    radii
        n x 64, px: the outline's radius at equal angles in the straightened frame; the area is exactly the nucleus's.
    first
        Row of each cell's first nucleus, and one more: cell k has the nuclei ``first[k]`` .. ``first[k + 1]``.
    """

    cell: np.ndarray
    frame: np.ndarray
    radii: np.ndarray
    first: np.ndarray


def shape_nuclei(causes: pd.DataFrame) -> Nuclei:
    """Outlines of the nuclei of cells in the order of ``causes``; two nuclei share the cell's nuclear area evenly."""
    number = causes["nuclei"].to_numpy(int)
    cell = np.repeat(np.arange(len(causes)), number)
    first = np.concatenate([[0], np.cumsum(number)])
    second = np.arange(len(cell)) > first[cell]  # of a pair
    paired = number[cell] == 2
    get = lambda name: causes[name].to_numpy(float)[cell]
    area = get("nucleus_area_px") / number[cell]
    aspect = np.where(paired, get("elongation") ** 0.4, get("elongation"))
    phi = 2 * np.pi * np.arange(RADII) / RADII + np.where(second, np.pi / 2, 0.0)[:, None]  # n x 64
    radii = 1 / np.sqrt(np.cos(phi) ** 2 / aspect[:, None] + np.sin(phi) ** 2 * aspect[:, None])
    wave = np.ones_like(radii)
    for k in (2, 3, 4):
        wave += 0.6 * get(f"shape_{k}")[:, None] * np.cos(k * phi + get(f"phase_{k}")[:, None])
    # Lobes: the outline is drawn in where two meet.
    uneven = phi + 0.45 * np.sin(phi + 2 * get("lobe_phase")[:, None])
    turn = get("lobe_number")[:, None] * uneven / 2 + get("lobe_phase")[:, None]
    wave *= 1 - 1.5 * get("lobes")[:, None] * (1 - np.abs(np.cos(turn)) ** 0.8)
    radii *= wave
    radii *= np.sqrt(area / (0.5 * np.sin(2 * np.pi / RADII) * (radii * np.roll(radii, -1, axis=1)).sum(1)))[:, None]
    size = np.sqrt(area / np.pi)
    # A pair lies side by side across the axis, a little pressed together.
    apart = np.where(paired, np.where(second, 1.0, -1.0) * 0.97 * size, 0.0)
    angle = get("angle")
    half = size * np.sqrt(aspect)
    bend = np.where(paired, 0.0, get("bend") / half)
    frame = np.column_stack(
        [
            get("nucleus_x") - apart * np.sin(angle),
            get("nucleus_y") + apart * np.cos(angle),
            np.cos(angle),
            np.sin(angle),
            bend,
            bend * half**2 / 4,
        ]
    )
    return Nuclei(cell, frame, radii, first)


@njit(cache=True)
def radius_at(cos: float, sin: float, radii: np.ndarray) -> float:
    """The outline's radius in a direction of the straightened frame."""
    t = math.atan2(sin, cos) * (RADII / 6.283185307179586)
    if t < 0.0:
        t += RADII
    i = int(t)
    f = t - i
    return radii[i % RADII] * (1.0 - f) + radii[(i + 1) % RADII] * f


@njit(cache=True)
def straighten(dx: float, dy: float, frame: np.ndarray) -> tuple[float, float]:
    """A point relative to the nucleus's centre (px), turned to its axis and unbent."""
    u = dx * frame[COS] + dy * frame[SIN]
    v = -dx * frame[SIN] + dy * frame[COS]
    return u, v - (frame[BEND] * u * u - frame[MIDDLE])


@njit(cache=True)
def bend_back(u: float, v: float, frame: np.ndarray) -> tuple[float, float]:
    """The inverse: px from the straightened frame, as places in the field of view."""
    v = v + (frame[BEND] * u * u - frame[MIDDLE])
    return frame[X] + u * frame[COS] - v * frame[SIN], frame[Y] + u * frame[SIN] + v * frame[COS]
