"""Drawing one field of view: nuclei, bodies, membranes, stains, noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from ._config import CHANNELS
from ._random import key_of, lattice, mix, normal, uniform
from ._slide_effects import slide_effects

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ._config import TissueConfig

SHAPE = (
    "x", "y", "nucleus_x", "nucleus_y", "nucleus_area_px", "elongation", "angle", "shape_2", "phase_2", "shape_3", "phase_3",
    "shape_4", "phase_4", "focus", "dapi", "texture", "radius", "marker", "rrna", "panck", "cd45",
)  # fmt: skip


@njit(cache=True)
def _outlines(cells: np.ndarray) -> np.ndarray:
    """What :func:`_outline` needs of each cell: axes and harmonics, scaled so that the area is exactly the cell's."""
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
def _outline(dx: float, dy: float, o: np.ndarray) -> tuple[float, float]:
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


@njit(cache=True)
def _field(side: int, key: np.uint64, scale: float) -> np.ndarray:
    """Smooth noise of [0, 1] on an image, whose features are ``1 / scale`` px long: a lattice of random numbers, interpolated."""
    n = int(side * scale) + 2
    table = np.empty((n, n), np.float32)
    for i in range(n):
        for j in range(n):
            table[i, j] = uniform(key, i * n + j)
    at = np.empty(side, np.int32)
    part = np.empty(side, np.float32)
    for j in range(side):
        x = j * scale
        at[j] = int(x)
        f = x - int(x)
        part[j] = f * f * (3.0 - 2.0 * f)
    out = np.empty((side, side), np.float32)
    line = np.empty(n, np.float32)
    for i in range(side):
        line[:] = table[at[i]] * (np.float32(1.0) - part[i]) + table[at[i] + 1] * part[i]
        for j in range(side):
            out[i, j] = line[at[j]] + (line[at[j] + 1] - line[at[j]]) * part[j]
    return out


@njit(cache=True)
def _bodies(side: int, cells: np.ndarray, px: float, key: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each pixel to its cell's border (px, inside > 0) and the cell (1.., 0 for none): a soft Voronoi tiling.

    Borders are bent by smooth noise, and a body ends ``radius`` from its centre where it has no neighbour.
    """
    first = np.full((side, side), 1e9, np.float32)
    second = np.full((side, side), 1e9, np.float32)
    owner = np.zeros((side, side), np.int32)
    bend = 1.1 / px
    bx = (_field(side, mix(key, 1), px / 3.0) - np.float32(0.5)) * np.float32(2.0 * bend)
    by = (_field(side, mix(key, 2), px / 3.0) - np.float32(0.5)) * np.float32(2.0 * bend)
    for k in range(cells.shape[0]):
        c = cells[k]
        radius = c[16] / px
        cos, sin = math.cos(c[6]), math.sin(c[6])
        stretch = c[5] ** 0.18
        reach = radius * stretch + bend + 2
        for i in range(max(int(c[1] - reach), 0), min(int(c[1] + reach) + 1, side)):
            for j in range(max(int(c[0] - reach), 0), min(int(c[0] + reach) + 1, side)):
                dx, dy = j + 0.5 - c[0] + bx[i, j], i + 0.5 - c[1] + by[i, j]
                u, v = (dx * cos + dy * sin) / stretch, (-dx * sin + dy * cos) * stretch
                e = math.sqrt(u * u + v * v) - radius
                if e < first[i, j]:
                    second[i, j] = first[i, j]
                    first[i, j] = e
                    owner[i, j] = k + 1
                elif e < second[i, j]:
                    second[i, j] = e
    for i in range(side):
        for j in range(side):
            inside = min(0.5 * (second[i, j] - first[i, j]), -first[i, j])
            if inside <= 0.0:
                owner[i, j] = 0
            first[i, j] = inside
    return first, owner


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
    outlines = _outlines(cells)
    where = np.zeros((4, 2))
    for k in range(cells.shape[0]):
        c = cells[k]
        key = keys[k]
        soft = c[13] / px
        size = math.sqrt(c[4] / math.pi * c[5]) * 1.25 + 4.0 * soft + 1
        grain = px / 1.1  # chromatin: grains of 1.1 um
        o = outlines[k]
        spots = 1 + int(uniform(key, 11) * 2.5)
        dark = min(1.2 * c[15], 0.7)
        for s in range(spots):  # nucleoli
            t, q = uniform(key, 20 + s) * 6.283, 0.5 * uniform(key, 30 + s) * o[11]
            where[s, 0], where[s, 1] = q * math.cos(t), q * math.sin(t)
        finer = mix(key, 5)
        for i in range(max(int(c[3] - size), 0), min(int(c[3] + size) + 1, side)):
            for j in range(max(int(c[2] - size), 0), min(int(c[2] + size) + 1, side)):
                dx, dy = j + 0.5 - c[2], i + 0.5 - c[3]
                rho, edge = _outline(dx, dy, o)
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
    grain = _field(side, key, px / 0.9)
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
def _smooth(image: np.ndarray, sigma: float) -> None:
    """Blur by a Gaussian of ``sigma`` px, in place; edges repeat."""
    h, w = image.shape
    radius = max(int(math.ceil(2.5 * sigma)), 1)
    kernel = np.empty(2 * radius + 1, np.float32)
    for t in range(2 * radius + 1):
        kernel[t] = math.exp(-0.5 * ((t - radius) / sigma) ** 2)
    kernel /= kernel.sum()
    line = np.empty((h, w), np.float32)
    for i in range(h):
        line[i] = 0.0
        for t in range(2 * radius + 1):
            row = image[min(max(i + t - radius, 0), h - 1)]
            for j in range(w):
                line[i, j] += kernel[t] * row[j]
    for i in range(h):
        for j in range(w):
            total = np.float32(0.0)
            if radius <= j < w - radius:
                for t in range(2 * radius + 1):
                    total += kernel[t] * line[i, j + t - radius]
            else:
                for t in range(2 * radius + 1):
                    total += kernel[t] * line[i, min(max(j + t - radius, 0), w - 1)]
            image[i, j] = total


@njit(cache=True)
def _finish(
    image: np.ndarray,
    haze: float,
    brightness: float,
    offset: float,
    gain: float,
    read_noise: float,
    noise: np.ndarray,
    half: float,
    out: np.ndarray,
) -> None:
    """Uneven light, offset, shot and camera noise, and (``half`` 0.5) rounding to the 16 bits of the camera."""
    h, w = image.shape
    for i in range(h):
        y = (i + 0.5) / h * 2 - 1
        for j in range(w):
            x = (j + 0.5) / w * 2 - 1
            light = brightness * (1.0 - 0.04 * (x * x + y * y))
            signal = offset * haze + image[i, j] * light
            value = signal + math.sqrt(gain * max(signal, 0.0) + read_noise * read_noise) * noise[i, j]
            out[i, j] = min(max(value + half, 0.0), 65535.0)


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


def draw_fov(
    config: TissueConfig, causes: pd.DataFrame, slide: int, fov: int, channels: Sequence[str], *, noise: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw a field of view (``fov`` from 1) from its cells' ``causes``.

    Returns
    -------
    Images (c x side x side, uint16; float32 without noise), the cell of each pixel (0: none), the nucleus of each pixel (0:
    none), and the distance to the cell's border (px). Cells are numbered as ``causes`` has them, from 1.
    """
    side, px = config.side, config.pixel_size
    cells = np.ascontiguousarray(causes[list(SHAPE)].to_numpy(np.float64))
    keys = np.array([key_of(config.seed, slide, fov, 3)], np.uint64)
    keys = _cell_keys(keys[0], len(cells))
    key = key_of(config.seed, slide, fov, 4)
    border, owner = _bodies(side, cells, px, key)
    dapi = np.zeros((side, side), np.float32)
    nucleus = np.zeros((side, side), np.int32)
    closest = np.full((side, side), 9.0, np.float32)
    ghosts, ghost_keys = _ghosts(
        len(cells) // 6, side, px, config.dapi, config.nucleus_area / px**2, key_of(config.seed, slide, fov, 8)
    )
    _nuclei(side, ghosts, ghost_keys, px, dapi, closest, np.zeros((0, 0), np.int32))
    _nuclei(side, cells, keys, px, dapi, closest, nucleus)
    owner = np.where(nucleus > 0, nucleus, owner)  # a nucleus is always its own cell's
    own = slide_effects(config).iloc[slide]
    brightness, blur = float(own["brightness"]), config.blur * float(own["blur"])
    offset = config.offset * float(own["background"])
    out = np.empty((len(channels), side, side), np.uint16 if noise else np.float32)
    for at, name in enumerate(channels):
        which = CHANNELS.index(name)
        image = dapi.copy() if name == "DAPI" else np.zeros((side, side), np.float32)
        if name == "DAPI":
            image += np.float32(0.02 * config.dapi) * (owner > 0)
        else:
            _stain(side, cells, border, owner, nucleus, px, key_of(config.seed, slide, fov, 5, which), which, image)
        if blur > 0:
            _smooth(image, max(blur / px, 0.3))
        rng = np.random.Generator(np.random.SFC64([config.seed, slide, fov, 6, which]))
        haze = 1.0 + 0.1 * rng.standard_normal()
        if noise:
            grain = rng.standard_normal((side, side), dtype=np.float32)
            _finish(image, haze, brightness, offset, config.gain, config.read_noise, grain, 0.5, out[at])
        else:
            _finish(image, haze, brightness, offset, 0.0, 0.0, np.zeros_like(image), 0.0, out[at])
    return out, owner, nucleus, border


@njit(cache=True)
def _cell_keys(key: np.uint64, n: int) -> np.ndarray:
    keys = np.empty(n, np.uint64)
    for k in range(n):
        keys[k] = mix(key, k)
    return keys
