"""Where the cells' centres come from: columns of the table, shapes, labels, in this order of preference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst._keys import SPATIAL, SST
from sst._settings import logger
from sst._validate import check_choice, describe_options

from ._transform import affine, to_system

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def find_centres(
    sdata: SpatialData,
    table: AnnData,
    *,
    center: str,
    to_px: np.ndarray | None,
    to_global: np.ndarray,
    labels: str | None,
    coordinate_system: str,
) -> tuple[np.ndarray, str]:
    """Centres of the table's cells in pixels of an image.

    For ``center="nucleus"``: ``obs["x_nucleus_px"]``; ``obs["x_nucleus_um"]`` (in the transcripts' coordinates); the mean of
    the vertices of ``shapes["nucleus_boundaries"]``; else the cell's centre. For the cell: the labels asked for;
    ``obs["x_px"]`` (in pixels of the image); the element that the table annotates (shapes or labels); ``obsm["spatial"]``
    (in the transcripts' coordinates if the object is a Xenium one, else in the coordinate system). Cells without a nucleus
    get the cell's centre.

    Parameters
    ----------
    sdata, table
        The object and (the part of) its table.
    center
        ``"nucleus"`` or ``"cell"``.
    to_px, to_global
        Matrices from the transcripts' coordinates to px and from px to the coordinate system.
    labels
        Labels element whose centroids are wanted.
    coordinate_system
        Name of the coordinate system.

    Returns
    -------
    n x 2 (x, y), NaN where a cell has none, and a word on where they come from.
    """
    check_choice("center", center, ("nucleus", "cell"))
    inverse = np.linalg.inv(to_global)
    if center == "nucleus":
        found = _nuclei(sdata, table, to_px, inverse, coordinate_system)
        if found is not None:
            centres, source = found
            lacking = np.isnan(centres).any(axis=1)
            if lacking.any():
                other, _ = _cells(sdata, table, to_px, inverse, labels, coordinate_system)
                centres = np.where(lacking[:, None], other, centres)
                logger.info("%d cells have no nucleus: the cell's centre is used", int(lacking.sum()))
            return centres, source
        logger.debug("no nucleus centres; the cells' centres are used")
    return _cells(sdata, table, to_px, inverse, labels, coordinate_system)


def _nuclei(
    sdata: SpatialData, table: AnnData, to_px: np.ndarray | None, inverse: np.ndarray, system: str
) -> tuple[np.ndarray, str] | None:
    obs = table.obs
    if {"x_nucleus_px", "y_nucleus_px"} <= set(obs.columns):
        return _columns(obs, "x_nucleus_px", "y_nucleus_px"), 'obs["x_nucleus_px"]'
    if {"x_nucleus_um", "y_nucleus_um"} <= set(obs.columns) and to_px is not None:
        return to_system(_columns(obs, "x_nucleus_um", "y_nucleus_um"), to_px), 'obs["x_nucleus_um"]'
    if "nucleus_boundaries" in sdata.shapes:
        shapes = sdata.shapes["nucleus_boundaries"]
        means = _vertex_means(shapes)
        _, keys = _annotated(table)
        centres = means.reindex(keys).to_numpy()
        if np.isnan(centres).all():
            centres = means.set_axis(means.index.astype(str)).reindex(keys.astype(str)).to_numpy()
        if not np.isnan(centres).all():
            return to_system(
                centres, inverse @ affine(shapes, "nucleus_boundaries", system)
            ), 'shapes["nucleus_boundaries"]'
    return None


def _cells(
    sdata: SpatialData,
    table: AnnData,
    to_px: np.ndarray | None,
    inverse: np.ndarray,
    labels: str | None,
    system: str,
) -> tuple[np.ndarray, str]:
    obs = table.obs
    region, keys = _annotated(table)
    if labels is not None:
        if labels not in sdata.labels:
            msg = f"labels={labels!r} is not among the labels of this SpatialData. {describe_options(sdata.labels, labels)}"
            raise KeyError(msg)
        return _label_centres(sdata, labels, keys, inverse, system)
    if {"x_px", "y_px"} <= set(obs.columns):
        return _columns(obs, "x_px", "y_px"), 'obs["x_px"]'
    xenium = "x_nucleus_um" in obs or getattr(sdata, "attrs", {}).get(SST, {}).get("vendor") == "xenium"
    if xenium and SPATIAL in table.obsm and to_px is not None:
        return to_system(
            np.asarray(table.obsm[SPATIAL], dtype=np.float64)[:, :2], to_px
        ), 'obsm["spatial"] (transcripts)'
    if region in sdata.shapes:
        shapes = sdata.shapes[region]
        means = pd.DataFrame({"x": shapes.geometry.centroid.x, "y": shapes.geometry.centroid.y}, index=shapes.index)
        return to_system(
            means.reindex(keys).to_numpy(), inverse @ affine(shapes, region, system)
        ), f"shapes[{region!r}]"
    if region in sdata.labels:
        return _label_centres(sdata, region, keys, inverse, system)
    if SPATIAL in table.obsm:
        return to_system(
            np.asarray(table.obsm[SPATIAL], dtype=np.float64)[:, :2], inverse
        ), f'obsm["spatial"] ({system})'
    msg = (
        "the cells' centres were not found: neither obs['x_px'], nor an element that the table annotates, nor "
        f"obsm['spatial']. obs has {list(obs.columns)[:20]}, shapes {list(sdata.shapes)}, labels {list(sdata.labels)}."
    )
    raise KeyError(msg)


def _annotated(table: AnnData) -> tuple[str, pd.Index]:
    """The element that the table annotates (``""`` if none or several), and the cells' ids in it."""
    attrs = table.uns.get("spatialdata_attrs", {})
    region, key = attrs.get("region"), attrs.get("instance_key")
    if isinstance(region, (list, tuple, np.ndarray)):
        here = pd.unique(table.obs[attrs["region_key"]]) if attrs.get("region_key") in table.obs else list(region)
        region = here[0] if len(here) == 1 else ""
    return str(region or ""), pd.Index(table.obs.get(key, table.obs_names))


def _columns(obs: pd.DataFrame, x: str, y: str) -> np.ndarray:
    return obs[[x, y]].to_numpy(dtype=np.float64)


def _vertex_means(shapes: Any) -> pd.DataFrame:
    """Mean of the outer vertices (each once) of every polygon; for several parts, of all of them."""
    import shapely

    parts, owner = shapely.get_parts(shapes.geometry.to_numpy(), return_index=True)
    xy, ring = shapely.get_coordinates(shapely.get_exterior_ring(parts), return_index=True)
    last = np.r_[ring[1:] != ring[:-1], True]  # the closing vertex repeats the first
    frame = pd.DataFrame({"x": xy[~last, 0], "y": xy[~last, 1], "i": owner[ring[~last]]}).groupby("i").mean()
    frame.index = shapes.index[frame.index]
    return frame[~frame.index.duplicated()]


def _label_centres(
    sdata: SpatialData, name: str, keys: pd.Index, inverse: np.ndarray, system: str
) -> tuple[np.ndarray, str]:
    from xarray import DataTree

    element = sdata.labels[name]
    matrix = inverse @ affine(element, name, system)
    if isinstance(element, DataTree):
        finest = element[next(iter(element.children))]
        element = finest[str(next(iter(finest.data_vars)))]
    means = label_centroids(element.data)
    if len(keys) and not pd.api.types.is_numeric_dtype(keys):
        keys = pd.Index(pd.to_numeric(keys, errors="coerce"))
    return to_system(means.reindex(keys).to_numpy(), matrix), f"labels[{name!r}]"


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
