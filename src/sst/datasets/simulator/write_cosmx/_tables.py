"""The rows that a CosMx export has of one field of view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst.datasets.simulator._outlines import CORNERS, inner_points, trace

from ._layouts import COMPARTMENTS

if TYPE_CHECKING:
    import pyarrow as pa

    from sst.datasets.simulator._fov import FieldOfView
    from sst.datasets.simulator._slides import Slides

    from ._layouts import CosMxLayout


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How pixels of a field of view become a vendor's local and global coordinates.

    Local y is the row, or, with ``y_up``, ``side - row``; global = corner + local, in pixels (mm: times the pixel size).
    """

    corner: tuple[float, float]
    side: int
    y_up: bool
    pixel_size: float

    def local(self, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """``x``, ``y`` local; ``x_global``, ``y_global``, in px."""
        if self.y_up:
            y = self.side - y
        return {"x": x, "y": y, "x_global": self.corner[0] + x, "y_global": self.corner[1] + y}


def make_frame(tissue: Slides, fov: int, *, y_up: bool) -> Frame:
    """The coordinates of a field of view; the mosaic starts some way off the origin, as it does on a stage."""
    config = tissue.config
    columns, _ = config.grid
    column, row = (fov - 1) % columns, (fov - 1) // columns
    # y up: rows of fields further down lie lower.
    y = 40000.0 - (row + 1) * config.side if y_up else 40000.0 + row * config.side
    return Frame(corner=(6000.0 + column * config.side, y), side=config.side, y_up=y_up, pixel_size=config.pixel_size)


def controls(
    tissue: Slides, layout: CosMxLayout, slide: int, fov: int, cells: int, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Controls' transcripts of a field of view: few, anywhere. ``gene`` counts on from the panel."""
    rng = np.random.default_rng([tissue.config.seed, slide, fov, 9])
    p = len(tissue.genes)
    gene = np.repeat(
        p + np.arange(layout.negative[1] + layout.system[1]),
        rng.poisson(0.02 * cells, layout.negative[1] + layout.system[1]),
    )
    side = tissue.config.side
    x, y = ((np.floor(rng.uniform(0, side, len(gene)) * 8) / 8 + 0.0625).astype(np.float32) for _ in range(2))
    cell = labels[y.astype(int), x.astype(int)]
    return {
        "x": x,
        "y": y,
        "z": rng.integers(0, 8, len(gene)).astype(np.int8),
        "gene": gene.astype(np.int32),
        "cell": cell,
    }


def target_names(tissue: Slides, layout: CosMxLayout) -> list[str]:
    """The panel and its controls."""
    more = [name.format(i + 1) for name, number in (layout.negative, layout.system) for i in range(number)]
    return [*tissue.genes.index.astype(str), *more]


def transcript_table(
    view: FieldOfView,
    found: dict[str, np.ndarray],
    frame: Frame,
    layout: CosMxLayout,
    names: list[str],
    slide: int,
    fov: int,
) -> pa.Table:
    """The transcripts' rows."""
    import pyarrow as pa

    at = frame.local(found["x"].astype(np.float64), found["y"].astype(np.float64))
    code = view.compartments[found["y"].astype(int), found["x"].astype(int)]
    n = len(code)
    columns: dict[str, object] = {"fov": np.full(n, fov, np.int32), "cell_ID": found["cell"]}
    if layout.gzipped:  # exports of AtoMx alone name the cell here
        known = [f"c_{slide + 1}_{fov}_{c}" for c in range(len(view.causes) + 1)]
        columns["cell"] = pa.DictionaryArray.from_arrays(pa.array(found["cell"].astype(np.int32)), pa.array(known))
    columns["x_global_px"] = at["x_global"]
    columns["y_global_px"] = at["y_global"]
    columns["x_local_px"] = at["x"]
    columns["y_local_px"] = at["y"]
    columns["z"] = found["z"]
    columns["target"] = pa.DictionaryArray.from_arrays(pa.array(found["gene"].astype(np.int32)), pa.array(names))
    columns["CellComp"] = pa.DictionaryArray.from_arrays(
        pa.array(code.astype(np.int32)), pa.array([layout.nowhere, *COMPARTMENTS])
    )
    return pa.table(columns)


def expression_table(
    view: FieldOfView, found: dict[str, np.ndarray], layout: CosMxLayout, names: list[str], fov: int
) -> pd.DataFrame:
    """One row a cell (and one of cell 0, in layouts that have it), one column a target."""
    cells, p = len(view.causes), len(names)
    counts = np.bincount(found["cell"].astype(np.int64) * p + found["gene"], minlength=(cells + 1) * p).reshape(-1, p)
    first = 0 if layout.outside_row else 1
    keys = pd.DataFrame({"fov": fov, "cell_ID": np.arange(first, cells + 1)})
    return pd.concat([keys, pd.DataFrame(counts[first:].astype(np.int32), columns=names)], axis=1)


def metadata_table(view: FieldOfView, frame: Frame, layout: CosMxLayout, fov: int) -> pd.DataFrame:
    """One row a cell: geometry of its mask, centre (whole pixels), mean and largest intensity of each stain."""
    causes, labels = view.causes, view.labels
    n = len(causes)
    flat = labels.ravel()
    area = np.bincount(flat, minlength=n + 1)[1:]
    width, height = _extent(labels, n)
    centre = frame.local(np.floor(causes["x"].to_numpy()), np.floor(causes["y"].to_numpy()))
    out = pd.DataFrame({"fov": fov, "cell_ID": causes["cell"].to_numpy()})
    for name in layout.name_columns:
        out[name] = causes.index.to_numpy()
    out["Area"] = area
    out["AspectRatio"] = np.round(width / np.maximum(height, 1), 2)
    for column, key in (("CenterX", "x"), ("CenterY", "y")):
        out[f"{column}_local_px"] = centre[key].astype(np.int64)
    for column, key in (("CenterX", "x_global"), ("CenterY", "y_global")):
        out[f"{column}_global_px"] = centre[key]
    if layout.gzipped:
        for key in ("x", "y"):
            out[f"{key}_slide_mm"] = np.round(centre[f"{key}_global"] * frame.pixel_size / 1000, 9)
    out["Width"], out["Height"] = width, height
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(1, n + 1))
    for name, image in zip(view.channels, view.images, strict=True):
        clean = "MembraneStain" if name == "CD298/B2M" else name
        total = np.bincount(flat, image.ravel(), minlength=n + 1)[1:]
        out[f"Mean.{clean}"] = np.round(total / np.maximum(area, 1)).astype(np.int64)
        values = image.ravel()[order]
        some = area > 0
        largest = np.zeros(n, np.int64)
        if some.any():
            largest[some] = np.maximum.reduceat(values, starts[some])
        out[f"Max.{clean}"] = largest
    out["cell_type"] = causes["cell_type"].to_numpy()
    return out


def _extent(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import find_objects

    boxes = find_objects(labels, n)
    width = np.array([b[1].stop - b[1].start if b else 0 for b in boxes], int)
    height = np.array([b[0].stop - b[0].start if b else 0 for b in boxes], int)
    return width, height


def polygon_table(view: FieldOfView, frame: Frame, layout: CosMxLayout, fov: int) -> pd.DataFrame:
    """The corners of each cell's outline."""
    causes = view.causes
    wanted, inside_x, inside_y = inner_points(
        view.labels, causes["nucleus_x"].to_numpy(), causes["nucleus_y"].to_numpy()
    )
    x, y = trace(view.labels, wanted, inside_x, inside_y)
    at = frame.local(np.round(x.ravel()), np.round(y.ravel()))
    out = pd.DataFrame({"fov": fov, "cellID": np.repeat(wanted, CORNERS)})
    if "cell" in layout.name_columns:
        out["cell"] = np.repeat(causes.index.to_numpy()[wanted - 1], CORNERS)
    for name in ("x", "y"):
        out[f"{name}_local_px"] = at[name]
    for name in ("x", "y"):
        out[f"{name}_global_px"] = at[f"{name}_global"]
    return out
