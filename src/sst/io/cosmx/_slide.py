"""A CosMx slide: what was read, before elements are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._csv import csv_columns, read_csv
from ._layout import QUIRKS, CosMxFiles
from ._tables import Cells, labels_of

if TYPE_CHECKING:
    from pathlib import Path

    from sst.io._raster import RasterInfo
    from sst.io._read_log import ReadLog

    from ._orientation import Orientation
    from ._placement import Placement
    from ._transcripts import Transcripts


@dataclass
class Slide:
    """Everything known of a slide before elements are made of it."""

    files: CosMxFiles
    fovs: list[int]
    infos: dict[int, RasterInfo]
    cells: Cells
    transcripts: Transcripts
    orientation: Orientation
    placement: Placement
    channels: list[str]
    pixel_size: float


def fov_key(fov: int) -> str:
    """``F001``: the name of a FOV in every element and table."""
    return f"F{fov:03d}"


def polygon_table(path: Path, log: ReadLog) -> pd.DataFrame:
    """The polygons' vertices: fov, label, x, y (local)."""
    names = csv_columns(path)
    found = {w: str(QUIRKS.column(w, names, file=path)) for w in ("fov", "label", "x", "y")}
    table = read_csv(path, list(found.values()))
    out = pd.DataFrame({w: table[c] for w, c in found.items() if w != "label"})
    out["label"] = labels_of(table[found["label"]], file=path)
    bad = ~np.isfinite(out.to_numpy(float)).all(axis=1)
    log.skip("vertices of polygons", int(bad.sum()), "no coordinates")
    return out.loc[~bad]
