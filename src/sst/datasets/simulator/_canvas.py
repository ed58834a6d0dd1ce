"""What every drawing uses: smooth noise, cell bodies, blur, the camera."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ._random import mix, uniform


@njit(cache=True)
def cell_keys(key: np.uint64, n: int) -> np.ndarray:
    """A key of each cell of a field."""
    keys = np.empty(n, np.uint64)
    for k in range(n):
        keys[k] = mix(key, k)
    return keys


@njit(cache=True)
def field(side: int, key: np.uint64, scale: float) -> np.ndarray:
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
def bodies(side: int, cells: np.ndarray, px: float, key: np.uint64, fine: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each pixel to its cell's border (px, inside > 0) and the cell (1.., 0 for none): a soft Voronoi tiling.

    ``cells`` are n x 6: centre (px), radius (um), angle, elongation, the power of it that the body takes. Borders are bent by
    smooth noise (and by ``fine`` um of finer noise), and a body ends ``radius`` from its centre where it has no neighbour.
    """
    first = np.full((side, side), 1e9, np.float32)
    second = np.full((side, side), 1e9, np.float32)
    owner = np.zeros((side, side), np.int32)
    bend = 1.1 / px
    bx = (field(side, mix(key, 1), px / 3.0) - np.float32(0.5)) * np.float32(2.0 * bend)
    by = (field(side, mix(key, 2), px / 3.0) - np.float32(0.5)) * np.float32(2.0 * bend)
    if fine > 0.0:
        bx += (field(side, mix(key, 3), px / 0.9) - np.float32(0.5)) * np.float32(2.0 * fine / px)
        by += (field(side, mix(key, 4), px / 0.9) - np.float32(0.5)) * np.float32(2.0 * fine / px)
        bend += fine / px
    for k in range(cells.shape[0]):
        c = cells[k]
        radius = c[2] / px
        cos, sin = math.cos(c[3]), math.sin(c[3])
        stretch = c[4] ** c[5]
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
def smooth(image: np.ndarray, sigma: float) -> None:
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
def finish(
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
