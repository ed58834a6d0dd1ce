"""A field of view of full detail: chromatin, planes of focus, glare; membranes, cytoplasm, vacuoles, granules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numba import njit

from ._canvas import bodies, cell_keys, field, smooth
from ._nucleus_shape import radius_at, shape_nuclei, straighten
from ._random import key_of, lattice, mix, uniform

if TYPE_CHECKING:
    from ._config import TissueConfig

PLANES = (0.0, 0.35, 0.8, 1.5)  # um of blur of what lies in and out of focus
PLANE_SHARE = (0.5, 0.26, 0.15, 0.09)
GLARE_STEP = 8  # px of the coarse grid of the glare
# Columns of what the stains need of each cell.
CX, CY, RADIUS, MARKER, MEMBRANE, VACUOLES, GRANULES, RRNA, PANCK, CD45 = range(10)
STAINS = ("x", "y", "radius", "marker", "membrane", "vacuoles", "granules", "rrna", "panck", "cd45")


@njit(cache=True)
def _paint_nuclei(
    side: int,
    frame: np.ndarray,
    radii: np.ndarray,
    look: np.ndarray,
    keys: np.ndarray,
    px: float,
    planes: np.ndarray,
    closest: np.ndarray,
    nucleus: np.ndarray,
) -> None:
    """Add nuclei to the planes of focus, and their masks to ``nucleus`` unless it is empty.

    ``look`` is n x 5: DAPI level, texture, plane, number of the cell, size (0..1) of the grains.
    """
    for k in range(frame.shape[0]):
        f, r, key = frame[k], radii[k], keys[k]
        level, texture, plane = look[k, 0], look[k, 1], int(look[k, 2])
        reach = 0.0
        for a in range(r.shape[0]):
            reach = max(reach, r[a])
        reach = reach * 1.05 + abs(f[5]) * 4.0 + 2.0
        grain = px / (0.9 + 0.5 * look[k, 4])  # clumps of about 1.1 um
        size = r.mean()
        spots = 1 + int(uniform(key, 11) * 3.0)
        where = np.empty((3, 3))
        for s in range(spots):  # nucleoli
            t, q = uniform(key, 20 + s) * 6.283, 0.55 * math.sqrt(uniform(key, 30 + s)) * size
            where[s, 0], where[s, 1] = q * math.cos(t), q * math.sin(t)
            where[s, 2] = (0.45 + 0.5 * uniform(key, 40 + s)) / px
        dark = min(0.25 + 1.1 * texture, 0.8)
        finer, clump, coat = mix(key, 5), mix(key, 6), mix(key, 7)
        for i in range(max(int(f[1] - reach), 0), min(int(f[1] + reach) + 1, side)):
            for j in range(max(int(f[0] - reach), 0), min(int(f[0] + reach) + 1, side)):
                u, v = straighten(j + 0.5 - f[0], i + 0.5 - f[1], f)
                far = math.sqrt(u * u + v * v)
                edge = radius_at(u, v, r)
                if far > edge + 0.5:
                    continue
                cover = min(edge + 0.5 - far, 1.0)
                deep = max(edge - far, 0.0) * px  # um below the envelope
                x, y = u * grain, v * grain
                rough = lattice(key, x, y) + 0.6 * lattice(finer, 2.1 * x, 2.1 * y) - 0.8
                bright = min(max((lattice(clump, 1.3 * x, 1.3 * y) - 0.62) * 5.0, 0.0), 1.0)
                rim = math.exp(-deep / 0.35) * (0.5 + lattice(coat, 0.8 * x, 0.8 * y))
                value = 0.72 + 0.28 * min(deep / 1.4, 1.0)
                value *= 1.0 + texture * (1.9 * rough + 1.6 * bright - 0.25 + 1.3 * rim)
                for s in range(spots):
                    d = math.sqrt((u - where[s, 0]) ** 2 + (v - where[s, 1]) ** 2) - where[s, 2]
                    if d < 1.5:
                        value *= 1.0 - dark * min(0.5 - d / 3.0, 1.0)
                planes[plane, i, j] += max(value, 0.06) * level * cover
                rho = far / edge
                if nucleus.shape[0] and rho < 1.0 and rho < closest[i, j]:
                    closest[i, j] = rho
                    nucleus[i, j] = int(look[k, 3])


@njit(cache=True)
def _paint_stain(
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
    """One stain of the cell bodies: 0 rRNA (cytoplasm), 1 PanCK (fibres), 2 CD298/B2M (membrane and cytoplasm), 3 CD45 (membrane)."""
    patch = field(side, mix(key, 1), px / 2.2)
    cloud = field(side, mix(key, 2), px / 1.3)
    thread = field(side, mix(key, 3), px / 0.8)
    for i in range(side):
        for j in range(side):
            k = owner[i, j] - 1
            if k < 0:
                continue
            c = cells[k]
            b = border[i, j] * px
            if b < 0.0:
                b = 0.0
            sharp = (b - 0.12) / 0.26
            ring = (math.exp(-0.5 * sharp * sharp) + 0.22 * math.exp(-b / 0.8)) * (0.3 + 1.4 * patch[i, j])
            fibre = 1.0 - abs(2.0 * thread[i, j] - 1.0)
            plasm = (0.45 + 0.75 * cloud[i, j]) * (0.6 + 0.8 * fibre * fibre) * (0.75 + 0.35 * min(b / 2.5, 1.0))
            if nucleus[i, j] > 0:
                plasm *= 0.42
            if which == 0:
                value = c[RRNA] * (plasm * 1.3 + (0.25 if nucleus[i, j] > 0 else 0.0) * cloud[i, j])
            elif which == 1:
                value = c[PANCK] * (
                    fibre * fibre * 1.5 * (0.4 + cloud[i, j]) * (0.3 if nucleus[i, j] > 0 else 1.0) + 0.5 * ring
                )
            elif which == 2:
                value = c[MARKER] * (3.3 * c[MEMBRANE] * ring + 0.66 * (1.0 - c[MEMBRANE]) * plasm)
            else:
                value = c[CD45] * (ring * 1.2 + 0.12 * plasm)
            image[i, j] = value


@njit(cache=True)
def _paint_droplets(
    side: int,
    cells: np.ndarray,
    owner: np.ndarray,
    nucleus: np.ndarray,
    px: float,
    keys: np.ndarray,
    which: int,
    image: np.ndarray,
) -> None:
    """Vacuoles (dark, in every stain of the cytoplasm) and granules (bright, of CD298/B2M alone) of the cells.

    The places and sizes are the cell's own; how many there are is the feature: the last one is as strong as the rest of it.
    """
    for k in range(cells.shape[0]):
        c, key = cells[k], mix(keys[k], 300)
        for kind in range(2):
            if kind == 1 and which != 2:
                continue
            left = c[VACUOLES] if kind == 0 else c[GRANULES]
            n = 0
            while left > 0.0:
                strength = min(left, 1.0)
                left -= 1.0
                own = mix(key, 100 * kind + n)
                n += 1
                t, q = 6.283185 * uniform(own, 0), math.sqrt(0.16 + 0.66 * uniform(own, 1)) * c[RADIUS] / px
                x, y = c[CX] + q * math.cos(t), c[CY] + q * math.sin(t)
                size = (0.5 + 0.6 * uniform(own, 2) if kind == 0 else 0.16 + 0.12 * uniform(own, 2)) / px
                if kind == 0:
                    size *= math.sqrt(strength)
                reach = size + 1.5 if kind == 0 else 3.0 * size
                amount = strength * c[MARKER] * (1.2 + 1.6 * uniform(own, 3))
                for i in range(max(int(y - reach), 0), min(int(y + reach) + 1, side)):
                    for j in range(max(int(x - reach), 0), min(int(x + reach) + 1, side)):
                        if owner[i, j] != k + 1 or nucleus[i, j] > 0:
                            continue
                        d = math.sqrt((j + 0.5 - x) ** 2 + (i + 0.5 - y) ** 2)
                        if kind == 0:
                            image[i, j] *= 1.0 - 0.9 * min(max(0.5 + size - d, 0.0), 1.0)
                        else:
                            image[i, j] += amount * math.exp(-0.5 * (d / size) ** 2)


@njit(cache=True)
def _glare(image: np.ndarray, share: float, sigma: float) -> None:
    """Add a wide halo of everything bright: the blurred image (``sigma`` px), on a coarse grid, times ``share``."""
    side = image.shape[0]
    n = (side + GLARE_STEP - 1) // GLARE_STEP + 1
    coarse = np.zeros((n, n), np.float32)
    for i in range(side):
        for j in range(side):
            coarse[i // GLARE_STEP, j // GLARE_STEP] += image[i, j] / (GLARE_STEP * GLARE_STEP)
    smooth(coarse, sigma / GLARE_STEP)
    for i in range(side):
        y = max((i + 0.5) / GLARE_STEP - 0.5, 0.0)
        a = int(y)
        fy = y - a
        for j in range(side):
            x = max((j + 0.5) / GLARE_STEP - 0.5, 0.0)
            b = int(x)
            fx = x - b
            top = coarse[a, b] * (1.0 - fx) + coarse[a, b + 1] * fx
            low = coarse[a + 1, b] * (1.0 - fx) + coarse[a + 1, b + 1] * fx
            image[i, j] += share * (top * (1.0 - fy) + low * fy)


@njit(cache=True)
def _specks(side: int, n: int, level: float, px: float, key: np.uint64, image: np.ndarray) -> None:
    """Debris: small bright bits that shine in every stain."""
    for s in range(n):
        own = mix(key, s)
        x, y = uniform(own, 0) * side, uniform(own, 1) * side
        size = (0.2 + 0.35 * uniform(own, 2)) / px
        amount = level * (0.15 + uniform(own, 3) ** 3)
        for i in range(max(int(y - 3 * size), 0), min(int(y + 3 * size) + 1, side)):
            for j in range(max(int(x - 3 * size), 0), min(int(x + 3 * size) + 1, side)):
                d2 = ((j + 0.5 - x) ** 2 + (i + 0.5 - y) ** 2) / (size * size)
                image[i, j] += amount * math.exp(-0.5 * d2)


class FullField:
    """The cells of a field of view, drawn from their ``causes``; as :class:`PlainField`."""

    def __init__(self, config: TissueConfig, causes: pd.DataFrame, slide: int, fov: int) -> None:
        side, px = config.side, config.pixel_size
        self.config, self.slide, self.fov = config, slide, fov
        self._keys = cell_keys(key_of(config.seed, slide, fov, 3), len(causes))
        body = causes[["x", "y", "radius", "angle", "type_elongation", "stretch"]].to_numpy(np.float64)
        self.border, owner = bodies(side, body, px, key_of(config.seed, slide, fov, 4), 0.15)
        self._cells = np.ascontiguousarray(causes[list(STAINS)].to_numpy(np.float64))
        self._planes = np.zeros((len(PLANES), side, side), np.float32)
        self.nucleus = np.zeros((side, side), np.int32)
        closest = np.full((side, side), 9.0, np.float32)
        ghosts = _ghosts(config, causes, slide, fov)
        for table, keys, mask in (
            (ghosts, cell_keys(key_of(config.seed, slide, fov, 8), len(ghosts)), np.zeros((0, 0), np.int32)),
            (causes, self._keys, self.nucleus),
        ):
            nuclei = shape_nuclei(table)
            look = np.column_stack(
                [
                    *(table[name].to_numpy(float)[nuclei.cell] for name in ("dapi", "texture", "plane")),
                    nuclei.cell + 1.0,
                    (table["phase_2"].to_numpy(float)[nuclei.cell] / 6.3),
                ]
            )
            second = np.arange(len(nuclei.cell)) > nuclei.first[nuclei.cell]
            own = np.where(
                second, cell_keys(key_of(config.seed, slide, fov, 14), len(table))[nuclei.cell], keys[nuclei.cell]
            )
            _paint_nuclei(side, nuclei.frame, nuclei.radii, look, own, px, self._planes, closest, mask)
        self.owner = np.where(self.nucleus > 0, self.nucleus, owner)  # a nucleus is always its own cell's

    def stain(self, which: int) -> np.ndarray:
        """One stain before blur and camera, side x side float32; ``which`` counts in ``CHANNELS``."""
        config, side, px = self.config, self.config.side, self.config.pixel_size
        parts = (config.seed, self.slide, self.fov, 5, which)
        key = key_of(*parts)
        if which == 4:
            image = self._planes[0].copy()
            for plane, sigma in zip(self._planes[1:], PLANES[1:], strict=True):
                part = plane.copy()
                smooth(part, sigma / px)
                image += part
            level = config.dapi
            image += np.float32(0.03 * level) * (0.4 + field(side, key_of(*parts, 1), px / 2.5)) * (self.owner > 0)
        else:
            image = np.zeros((side, side), np.float32)
            _paint_stain(side, self._cells, self.border, self.owner, self.nucleus, px, key, which, image)
            _paint_droplets(side, self._cells, self.owner, self.nucleus, px, self._keys, which, image)
            level = config.marker
            # A section is thicker than the focus: part of the light comes from above and below.
            image *= np.float32(0.8)
            part = image.copy()
            smooth(part, 0.9 / px)
            image += np.float32(0.3) * part
        _specks(side, 1 + side * side // 40_000, level, px, key_of(config.seed, self.slide, self.fov, 15), image)
        # Autofluorescence of what lies between: clouds and, finer, fibres.
        cloud = field(side, key_of(*parts, 4), px / 25.0)
        fibre = field(side, key_of(*parts, 5), px / 4.0)
        image += np.float32(2.0 * config.offset) * cloud * (0.3 + 1.4 * fibre * fibre)
        _glare(image, 0.16, 6.0 / px)
        return image


def _ghosts(config: TissueConfig, causes: pd.DataFrame, slide: int, fov: int) -> pd.DataFrame:
    """Nuclei that lie too deep for the table: one for every three cells, out of focus."""
    rng = np.random.default_rng([config.seed, slide, fov, 16])
    n = len(causes) // 3
    side = config.side
    out = {
        "nucleus_x": rng.uniform(0, side, n),
        "nucleus_y": rng.uniform(0, side, n),
        "nucleus_area_px": config.nucleus_area / config.pixel_size**2 * np.exp(rng.normal(-0.2, 0.35, n)),
        "elongation": 1.1 + rng.gamma(2.0, 0.4, n),
        "angle": rng.uniform(0, np.pi, n),
        "bend": rng.normal(0, 0.1, n),
        "lobes": np.zeros(n),
        "lobe_number": np.full(n, 2),
        "lobe_phase": np.zeros(n),
        "nuclei": np.ones(n, int),
        "dapi": config.dapi * rng.uniform(0.08, 0.5, n),
        "texture": np.full(n, 0.1),
        "plane": rng.choice([2, 3], n),
    }
    for k in (2, 3, 4):
        out[f"shape_{k}"] = rng.normal(0, 0.05, n)
        out[f"phase_{k}"] = rng.uniform(0, 2 * np.pi, n)
    return pd.DataFrame(out)
