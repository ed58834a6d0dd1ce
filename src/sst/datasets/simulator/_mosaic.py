"""A whole slide in one piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst._settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._slides import Slides


@dataclass(frozen=True)
class Mosaic:
    """All fields of view of a slide, side by side.

    Attributes
    ----------
    causes
        The slide's rows of ``Slides.causes``; ``x``, ``y``, ``nucleus_x``, ``nucleus_y`` in px of the mosaic.
    images
        c x height x width, uint16.
    cells, nuclei
        height x width, uint32: row of ``causes`` plus one, 0 for none.
    transcripts
        As of a field of view; ``x``, ``y`` in px of the mosaic (float64), ``cell`` the row of ``causes`` plus one, and ``nucleus``
        (it lies on one).
    """

    causes: pd.DataFrame
    images: np.ndarray
    cells: np.ndarray
    nuclei: np.ndarray
    transcripts: dict[str, np.ndarray]


def make_mosaic(tissue: Slides, group: str, channels: Sequence[str]) -> Mosaic:
    """Draw a slide and put its fields of view together."""
    config = tissue.config
    side = config.side
    columns, rows = config.grid
    images = np.zeros((len(channels), rows * side, columns * side), np.uint16)
    cells, nuclei = (np.zeros(images.shape[1:], np.uint32) for _ in range(2))
    causes, found = [], []
    start = 0
    for fov in tqdm(range(1, config.fovs + 1), desc=f"draw {group}", disable=not settings.progress):
        view = tissue.draw(group, fov, channels=channels)
        x, y = (fov - 1) % columns * side, (fov - 1) // columns * side
        here = (slice(y, y + side), slice(x, x + side))
        images[(slice(None), *here)] = view.images
        cells[here] = np.where(view.labels > 0, view.labels + start, 0)
        nuclei[here] = np.where(view.compartments == 1, view.labels + start, 0)
        table = view.causes.copy()
        for name in ("x", "nucleus_x"):
            table[name] += x
        for name in ("y", "nucleus_y"):
            table[name] += y
        causes.append(table)
        t = dict(view.transcripts)
        t["nucleus"] = view.compartments[t["y"].astype(int), t["x"].astype(int)] == 1
        t["cell"] = np.where(t["cell"] > 0, t["cell"] + start, 0)
        t["x"], t["y"] = t["x"].astype(float) + x, t["y"].astype(float) + y
        t["fov"] = np.full(len(t["x"]), fov, np.int32)
        found.append(t)
        start += len(table)
    transcripts = {k: np.concatenate([t[k] for t in found]) for k in found[0]}
    return Mosaic(pd.concat(causes), images, cells, nuclei, transcripts)
