"""Where cells are by elements that know their transformations: shapes, labels, and the transcripts assigned to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

_LEAST = 3  # transcripts of a cell
_PARTITIONS = 8


def single_scale(element: Any) -> Any:
    """The array of the finest scale of an image or labels."""
    from xarray import DataTree

    if isinstance(element, DataTree):
        finest = element[next(iter(element.children))]
        return finest[str(next(iter(finest.data_vars)))]
    return element


def vertex_means(shapes: Any) -> pd.DataFrame:
    """Mean of the outer vertices (each once) of every polygon, by cell: of the largest where a cell has several.

    Cells are named by a column ``cell_id`` (the shapes' own index then numbers nuclei), else by the index.
    """
    import shapely

    parts, owner = shapely.get_parts(shapes.geometry.to_numpy(), return_index=True)
    xy, ring = shapely.get_coordinates(shapely.get_exterior_ring(parts), return_index=True)
    last = np.r_[ring[1:] != ring[:-1], True]  # the closing vertex repeats the first
    frame = pd.DataFrame({"x": xy[~last, 0], "y": xy[~last, 1], "i": owner[ring[~last]]}).groupby("i").mean()
    area = shapes.geometry.area.to_numpy()[frame.index]
    names = shapes["cell_id"].to_numpy() if "cell_id" in shapes.columns else shapes.index.to_numpy()
    frame.index = pd.Index(names[frame.index])
    frame = frame.iloc[np.argsort(-area, kind="stable")]
    return frame[~frame.index.duplicated()]


def shape_centroids(shapes: Any) -> pd.DataFrame:
    """Centroid (x, y) of every shape."""
    centre = shapes.geometry.centroid
    frame = pd.DataFrame({"x": centre.x, "y": centre.y}, index=shapes.index)
    return frame[~frame.index.duplicated()]


def label_centroids(labels: Any) -> pd.DataFrame:
    """Centroid (x, y) in px of every label but 0, chunk by chunk; a pixel's centre is at its index plus 1/2.

    Parameters
    ----------
    labels
        y x x, numpy or dask.
    """
    blocks = [(slice(None), slice(None))]
    if hasattr(labels, "chunks"):
        ends = [np.r_[0, np.cumsum(c)] for c in labels.chunks]
        blocks = [
            (slice(int(a), int(b)), slice(int(c), int(d)))
            for a, b in zip(ends[0][:-1], ends[0][1:], strict=True)
            for c, d in zip(ends[1][:-1], ends[1][1:], strict=True)
        ]
    sums = []
    for rows, columns in blocks:
        block = np.asarray(labels[rows, columns])
        y, x = np.nonzero(block)
        ids, where = np.unique(block[y, x], return_inverse=True)
        count = np.bincount(where, minlength=len(ids))
        sum_x = np.bincount(where, weights=x + (columns.start or 0) + 0.5, minlength=len(ids))
        sum_y = np.bincount(where, weights=y + (rows.start or 0) + 0.5, minlength=len(ids))
        sums.append(pd.DataFrame({"n": count, "x": sum_x, "y": sum_y}, index=ids.astype(np.int64)))
    total = pd.concat(sums).groupby(level=0).sum()
    return pd.DataFrame({"x": total["x"] / total["n"], "y": total["y"] / total["n"]}, index=total.index)


def first_rows(points: Any, columns: list[str]) -> pd.DataFrame:
    """The transcripts of the first partitions: enough to see where cells are."""
    part = points[columns]
    return part.partitions[:_PARTITIONS].compute() if hasattr(part, "partitions") else part


def transcript_means(points: Any) -> pd.DataFrame:
    """Mean (x, y) of the transcripts of every cell that has at least three; indexed by the cell's name as text."""
    means = first_rows(points, ["x", "y", "cell_id"]).groupby("cell_id", observed=True)[["x", "y"]]
    frame = means.mean()[means.size() >= _LEAST]
    frame.index = pd.Index([v.decode() if isinstance(v, bytes) else str(v) for v in frame.index])
    return frame[~frame.index.duplicated()]


def is_assigned(cell_id: pd.Series) -> np.ndarray:
    """Whether a transcript belongs to a cell: a number above 0, or a name that is none of the vendors' words for none."""
    if isinstance(cell_id.dtype, pd.CategoricalDtype):
        known = is_assigned(pd.Series(cell_id.cat.categories))
        codes = cell_id.cat.codes.to_numpy()
        return np.append(known, False)[codes]  # a missing value has code -1
    if pd.api.types.is_numeric_dtype(cell_id):
        return (cell_id.fillna(0) > 0).to_numpy(dtype=bool)
    text = cell_id.map(lambda v: v.decode() if isinstance(v, bytes) else str(v))
    nobody = text.str.upper().isin(["", "UNASSIGNED", "NONE", "NAN", "NA", "<NA>", "0", "-1", "0.0", "-1.0"])
    return ~(nobody | text.str.fullmatch(r"c_\d+_\d+_0")).to_numpy(dtype=bool)


def pick(frame: pd.DataFrame, keys: pd.Index) -> np.ndarray | None:
    """Rows of ``frame`` for ``keys``, compared as text where they do not match as they are; ``None`` if none does."""
    xy = frame.reindex(keys).to_numpy(dtype=np.float64)
    if np.isnan(xy).all():
        text = frame.set_axis(frame.index.astype(str))
        xy = text[~text.index.duplicated()].reindex(keys.astype(str)).to_numpy(dtype=np.float64)
    return None if np.isnan(xy).all() else xy
