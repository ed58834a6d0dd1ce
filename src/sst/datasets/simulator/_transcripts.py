"""Transcripts of one field of view, placed in space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from ._canvas import cell_keys
from ._draw_plain import SHAPE
from ._nucleus_shape import bend_back, radius_at, shape_nuclei
from ._outline import outline, outlines
from ._random import gamma_poisson, key_of, mix, normal, uniform

if TYPE_CHECKING:
    import pandas as pd

    from ._config import TissueConfig

SLICES = 8  # z planes


@njit(cache=True)
def _count(means: np.ndarray, dispersion: float, keys: np.ndarray, counts: np.ndarray) -> None:
    for k in range(means.shape[0]):
        for g in range(means.shape[1]):
            counts[k, g] = gamma_poisson(means[k, g], dispersion, mix(keys[k], 100), g)


@njit(cache=True)
def _snap(value: float) -> float:
    """To the middle of an eighth of a pixel: exact in float32, short in a text file, and never on a pixel's border."""
    return math.floor(value * 8.0) / 8.0 + 0.0625


@njit(cache=True)
def _place(
    counts: np.ndarray,
    ambient: np.ndarray,
    cells: np.ndarray,
    shapes: np.ndarray,
    frames: np.ndarray,
    radii: np.ndarray,
    first: np.ndarray,
    keys: np.ndarray,
    key: np.uint64,
    nuclear: np.ndarray,
    stray_share: float,
    stray_far: float,
    owner: np.ndarray,
    px: float,
    out: tuple[np.ndarray, ...],
) -> int:
    x, y, z, gene, source, qv = out
    side = owner.shape[0]
    at = 0
    full = len(radii) > 0
    for k in range(counts.shape[0]):
        c = cells[k]
        for g in range(counts.shape[1]):
            own = mix(keys[k], 1000 + g)
            for t in range(counts[k, g]):
                one = mix(own, t)
                inside = uniform(one, 0) < nuclear[g]
                stray = uniform(one, 1) < stray_share
                px_x, px_y = 0.0, 0.0
                which = first[k]
                if full and first[k + 1] - first[k] > 1 and uniform(one, 7) < 0.5:
                    which += 1
                for trial in range(12):
                    phi = 6.283185307179586 * uniform(one, 10 + 2 * trial)
                    u = uniform(one, 11 + 2 * trial)
                    cos, sin = math.cos(phi), math.sin(phi)
                    # The outline's radius in this direction.
                    edge = radius_at(cos, sin, radii[which]) if full else outline(cos, sin, shapes[k])[1]
                    reach = edge * math.sqrt(u)
                    if not inside:
                        reach = edge + max(c[2] / px - edge, 2.0) * (1.0 - math.sqrt(1.0 - u))
                    if stray:
                        reach += stray_far / px * abs(normal(one, 50))
                    if full:
                        px_x, px_y = bend_back(reach * cos, reach * sin, frames[which])
                    else:
                        px_x, px_y = c[0] + reach * cos, c[1] + reach * sin
                    i, j = int(math.floor(px_y)), int(math.floor(px_x))
                    if stray or (0 <= i < side and 0 <= j < side and owner[i, j] == k + 1):
                        break
                px_x, px_y = _snap(px_x), _snap(px_y)
                if px_x < 0 or px_y < 0 or px_x >= side or px_y >= side:
                    continue
                x[at], y[at], gene[at], source[at] = px_x, px_y, g, k + 1
                z[at] = min(int(uniform(one, 2) * SLICES), SLICES - 1)
                qv[at] = 40.0 if uniform(one, 3) < 0.8 else 12.0 + 28.0 * uniform(one, 4)
                at += 1
    for g in range(ambient.shape[0]):
        own = mix(key, 500 + g)
        for t in range(gamma_poisson(ambient[g], 0.0, own, 0)):
            if at >= x.shape[0]:
                break
            one = mix(own, 1 + t)
            x[at], y[at] = _snap(uniform(one, 0) * side), _snap(uniform(one, 1) * side)
            gene[at], source[at] = g, 0
            z[at] = min(int(uniform(one, 2) * SLICES), SLICES - 1)
            qv[at] = 40.0 if uniform(one, 3) < 0.5 else 10.0 + 30.0 * uniform(one, 4)
            at += 1
    return at


def draw_transcripts(
    config: TissueConfig,
    genes: pd.DataFrame,
    causes: pd.DataFrame,
    latent: np.ndarray,
    slide: int,
    fov: int,
    owner: np.ndarray,
) -> dict[str, np.ndarray]:
    """Transcripts of a field of view (``fov`` from 1).

    Returns
    -------
    ``x``, ``y`` (float32, px), ``z`` (plane), ``gene`` (column of the panel), ``source`` (the cell that made it, from 1; 0:
    ambient), ``qv`` (Phred-scaled quality), ``cell`` (the cell whose pixel it lies on; 0: none).
    """
    means = np.exp(latent) * causes["depth"].to_numpy(float)[:, None] * (1 - config.ambient)
    key = key_of(config.seed, slide, fov, 7)
    keys = cell_keys(key, len(causes))
    counts = np.zeros(means.shape, np.int32)
    _count(means, config.dispersion, keys, counts)
    ambient = means.sum(0) * config.ambient / (1 - config.ambient)
    room = int(counts.sum() + ambient.sum() + 8 * ambient.sum() ** 0.5 + 100)
    out: dict[str, np.ndarray] = {
        "x": np.empty(room, np.float32),
        "y": np.empty(room, np.float32),
        "z": np.empty(room, np.int8),
        "gene": np.empty(room, np.int32),
        "source": np.empty(room, np.int32),
        "qv": np.empty(room, np.float32),
    }
    cells = np.ascontiguousarray(causes[["nucleus_x", "nucleus_y", "radius"]].to_numpy(np.float64))
    shapes, frames, radii = np.empty((0, 12)), np.empty((0, 6)), np.empty((0, 64))
    first = np.zeros(len(causes) + 1, np.int64)
    if config.detail == "full":
        nuclei = shape_nuclei(causes)
        frames, radii, first = nuclei.frame, nuclei.radii, nuclei.first
    else:
        shapes = outlines(np.ascontiguousarray(causes[list(SHAPE)].to_numpy(np.float64)))
    n = _place(
        counts, ambient, cells, shapes, frames, radii, first, keys, key, genes["nuclear"].to_numpy(float), config.stray, config.stray_distance,
        owner, config.pixel_size, tuple(out.values()),
    )  # fmt: skip
    out = {name: values[:n] for name, values in out.items()}
    out["cell"] = owner[out["y"].astype(np.int32), out["x"].astype(np.int32)]
    return out
