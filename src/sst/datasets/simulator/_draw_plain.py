"""A field of view of the plain tissue: nuclei, bodies, membranes, stains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from ._canvas import bodies, cell_keys, field
from ._outline import outline, outlines
from ._random import key_of, lattice, mix, normal, uniform

if TYPE_CHECKING:
    import pandas as pd

    from ._config import TissueConfig

SHAPE = (
    "x", "y", "nucleus_x", "nucleus_y", "nucleus_area_px", "elongation", "angle", "shape_2", "phase_2", "shape_3", "phase_3",
    "shape_4", "phase_4", "focus", "dapi", "texture", "radius", "marker", "rrna", "panck", "cd45",
)  # fmt: skip


@njit(cache=True)
def _nuclei(
    side: int,
    cells: np.ndarray,
    keys: np.ndarray,
    px: float,
    image: np.ndarray,
    closest: np.ndarray,
    nucleus: np.ndarray,
) -> None:
    """Draw the nuclei of ``cells`` into ``image`` (DAPI) and, if ``nucleus`` is not empty, their masks into it."""
    shapes = outlines(cells)
    where = np.zeros((4, 2))
    for k in range(cells.shape[0]):
        c = cells[k]
        key = keys[k]
        soft = c[13] / px
        size = math.sqrt(c[4] / math.pi * c[5]) * 1.25 + 4.0 * soft + 1
        grain = px / 1.1  # chromatin: grains of 1.1 um
        o = shapes[k]
        spots = 1 + int(uniform(key, 11) * 2.5)
        dark = min(1.2 * c[15], 0.7)
        for s in range(spots):  # nucleoli
            t, q = uniform(key, 20 + s) * 6.283, 0.5 * uniform(key, 30 + s) * o[11]
            where[s, 0], where[s, 1] = q * math.cos(t), q * math.sin(t)
        finer = mix(key, 5)
        for i in range(max(int(c[3] - size), 0), min(int(c[3] + size) + 1, side)):
            for j in range(max(int(c[2] - size), 0), min(int(c[2] + size) + 1, side)):
                dx, dy = j + 0.5 - c[2], i + 0.5 - c[3]
                rho, edge = outline(dx, dy, o)
                gap = (rho - 1.0) * edge  # px outside the outline, along the ray
                if gap > 4.0 * soft:
                    continue
                level = 1.0 if gap < -4.0 * soft else 1.0 / (1.0 + math.exp(1.7 * gap / soft))
                dome = 0.84 + 0.16 * math.sqrt(max(1.0 - rho * rho, 0.0))
                rim = 0.18 * max(1.0 - ((rho - 0.86) / 0.2) ** 2, 0.0)
                x, y = dx * grain, dy * grain
                chromatin = lattice(key, x, y) + 0.5 * lattice(finer, 2 * x, 2 * y) - 0.75
                value = dome * (1.0 + c[15] * (2.0 * chromatin + rim))
                for s in range(spots):
                    d2 = ((dx - where[s, 0]) ** 2 + (dy - where[s, 1]) ** 2) * px * px
                    if d2 < 2.0:
                        value *= 1.0 - dark * math.exp(-d2 / 0.55)
                value = max(value, 0.05) * c[14] * level
                if value > image[i, j]:
                    image[i, j] = value + 0.3 * image[i, j]
                else:
                    image[i, j] += 0.3 * value
                if nucleus.shape[0] and rho < 1.0 and rho < closest[i, j]:
                    closest[i, j] = rho
                    nucleus[i, j] = k + 1


@njit(cache=True)
def _stain(
    side: int,
    cells: np.ndarray,
    border: np.ndarray,
    owner: np.ndarray,
    nucleus: np.ndarray,
    px: float,
    key: np.uint64,
    which: int,
    image: np.ndarray,
) -> None:
    """One stain of the cell bodies: 0 rRNA (cytoplasm), 1 PanCK (fibres), 2 CD298/B2M (membrane ring), 3 CD45 (thin ring)."""
    grain = field(side, key, px / 0.9)
    width = (0.45 if which == 2 else 0.35) / px
    column = 18 if which == 0 else (19 if which == 1 else (17 if which == 2 else 20))
    for i in range(side):
        for j in range(side):
            k = owner[i, j] - 1
            if k < 0:
                continue
            b = border[i, j]
            rough = grain[i, j]
            ring = math.exp(-0.5 * (b / width) ** 2)
            inside = nucleus[i, j] > 0
            if which == 0:
                value = (0.35 if inside else 1.0) * (1.0 - 0.8 * ring) * (0.6 + 0.8 * rough)
            elif which == 1:
                value = (0.1 if inside else 0.8) * rough * rough * 1.6
            elif which == 2:
                value = ring * (0.55 + 0.9 * rough) + (0.10 if inside else 0.22) * (0.7 + 0.6 * rough)
            else:
                value = ring * (0.4 + 1.2 * rough) + 0.05
            image[i, j] = value * cells[k, column]


@njit(cache=True)
def _ghosts(n: int, side: int, px: float, dapi: float, area: float, key: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Nuclei of the next plane: faint, soft, of no cell in the table."""
    cells = np.zeros((n, 21))
    keys = np.empty(n, np.uint64)
    for k in range(n):
        own = mix(key, k)
        keys[k] = own
        cells[k, 2], cells[k, 3] = uniform(own, 0) * side, uniform(own, 1) * side
        cells[k, 4] = area * math.exp(0.2 * normal(own, 3))
        cells[k, 5], cells[k, 6] = 1.1 + uniform(own, 2), 3.14159 * uniform(own, 3)
        cells[k, 13] = 0.8 + 0.8 * uniform(own, 4)
        cells[k, 14] = dapi * (0.04 + 0.12 * uniform(own, 5))
        cells[k, 15] = 0.05
    return cells, keys


class PlainField:
    """The cells of a field of view, drawn from their ``causes``.

    ``owner`` (the cell of each pixel, from 1; 0: none), ``nucleus`` (the same of nuclei) and ``border`` (distance to the cell's
    border, px) are side x side.
    """

    def __init__(self, config: TissueConfig, causes: pd.DataFrame, slide: int, fov: int) -> None:
        side, px = config.side, config.pixel_size
        self.config, self.slide, self.fov = config, slide, fov
        self._cells = np.ascontiguousarray(causes[list(SHAPE)].to_numpy(np.float64))
        keys = cell_keys(key_of(config.seed, slide, fov, 3), len(causes))
        body = causes[["x", "y", "radius", "angle", "elongation"]].assign(power=0.18).to_numpy(np.float64)
        self.border, owner = bodies(side, body, px, key_of(config.seed, slide, fov, 4), 0.0)
        self._dapi = np.zeros((side, side), np.float32)
        self.nucleus = np.zeros((side, side), np.int32)
        closest = np.full((side, side), 9.0, np.float32)
        ghosts, ghost_keys = _ghosts(
            len(causes) // 6, side, px, config.dapi, config.nucleus_area / px**2, key_of(config.seed, slide, fov, 8)
        )
        _nuclei(side, ghosts, ghost_keys, px, self._dapi, closest, np.zeros((0, 0), np.int32))
        _nuclei(side, self._cells, keys, px, self._dapi, closest, self.nucleus)
        self.owner = np.where(self.nucleus > 0, self.nucleus, owner)  # a nucleus is always its own cell's

    def stain(self, which: int) -> np.ndarray:
        """One stain before blur and camera, side x side float32; ``which`` counts in ``CHANNELS``."""
        if which == 4:
            return self._dapi + np.float32(0.02 * self.config.dapi) * (self.owner > 0)
        side = self.config.side
        image = np.zeros((side, side), np.float32)
        key = key_of(self.config.seed, self.slide, self.fov, 5, which)
        _stain(side, self._cells, self.border, self.owner, self.nucleus, self.config.pixel_size, key, which, image)
        return image
