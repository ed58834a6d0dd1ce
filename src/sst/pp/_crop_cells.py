"""Cut paired cells: an image and an expression vector of the same window around every cell."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sst._files import scratch_folder
from sst._keys import CELL_CROPS, CROPS, FOV, SAMPLE, SPATIAL, SPATIAL_PX, SST, TABLE, write_params
from sst._settings import logger
from sst._validate import check_choice, check_range, resolve_table
from sst.io.crops import (
    Job,
    MemoryOutput,
    Plan,
    Segmented,
    Spool,
    StoreOutput,
    make_grids,
    plan_crops,
    run_jobs,
    spool_points,
    to_system,
    window_corners,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_VERSION = 1


def crop_cells(
    sdata: SpatialData,
    *,
    size: int,
    output_size: int = 128,
    channels: Sequence[str | int] | None = None,
    center: Literal["nucleus", "cell"] = "nucleus",
    expression: Literal["window", "cell"] = "window",
    border: int = 0,
    min_qv: float = 20,
    assigned_only: bool = False,
    pad: bool = False,
    store: str | os.PathLike[str] | None = None,
    image: str | None = None,
    points: str | None = None,
    labels: str | None = None,
    table_key: str = TABLE,
    sample: str | None = None,
    coordinate_system: str = "global",
    pixel_size: float | None = None,
    n_workers: int | None = None,
    overwrite: bool = False,
) -> AnnData:
    """Pair every cell's image with the expression in the same window.

    A window of ``size`` s around the centre (x, y) covers the pixels ``floor(x) - s // 2 ... floor(x) - s // 2 + s - 1`` of each
    axis, pixel i covering the coordinates [i, i + 1). Cells whose window leaves the image or the transcripts' area (their
    bounding box, widened to multiples of 64 px) are left out and counted.

    Parameters
    ----------
    sdata
        Object with an image, transcripts and a table, in any transformations. With ``obs["fov"]`` and images
        ``"{fov}_image"`` every field of view is cut for itself.
    size
        Edge of the window in pixels of the image (finest scale).
    output_size
        Edge of the crops; if it differs from ``size`` they are resized (bicubic, antialiased).
    channels
        Names or indices of the image's channels, in the order wanted; all if ``None``.
    center
        Centre windows on the nucleus (where one is known) or on the cell.
    expression
        ``X`` counts the transcripts in the window, or (``"cell"``) is the segmented cell's counts.
    border
        Windows that come closer than this many px to the low edges (x and y) of their image are left out.
    min_qv
        Least quality of a transcript, where there is a column ``qv``.
    assigned_only
        Count only transcripts that are assigned to a cell.
    pad
        Keep cells at the edges; what lies outside the image is 0.
    store
        Folder of a crop store to write, instead of keeping the images in memory. An interrupted call is taken up again by
        the same call.
    image, points, labels
        Names of the elements, if they are not found by themselves; ``{fov}`` stands for the FOV. With ``labels``, cells are
        centred on the centroids of these labels.
    table_key
        Name of the table.
    sample
        Name of the slide, for ``obs["sample"]``: by default the table's, the reader's, or the store's name.
    coordinate_system
        Coordinate system that the elements share.
    pixel_size
        Micrometres per pixel of the image (finest scale); by default what the reader or ``sdata.attrs["pixel_size"]`` says,
        else the scale between the transcripts (taken to be in micrometres) and the image, where it is below one.
    n_workers
        Threads (default: the number of cores); with a store and an active ``dask.distributed`` client the client is used,
        with ``dask.config.set(scheduler="processes")`` processes are.
    overwrite
        Replace a store that is there.

    Returns
    -------
    AnnData with a row per cell kept, in the table's order:

    ``X``
        counts, CSR ``int32`` (n x p).
    ``layers["segmented"]``
        the segmented cell's counts, CSR (n x p), if the table has counts.
    ``obsm["crops"]``
        images, n x c x output_size x output_size, of the image's type; with ``store`` a dask array over the store.
    ``obsm["spatial_px"]``, ``obsm["spatial"]``
        centres (x, y) in px of the image and in the coordinate system, ``float64`` (n x 2).
    ``obs["fov"]``, ``obs["cell_id"]``, ``obs["sample"]``
        and all columns of the table.
    ``uns["crops"]``
        ``params``, ``report`` (cells and transcripts left out, by reason), ``channels``, ``size``, ``output_size``,
        ``pixel_size`` (um per pixel of a crop, 0 if unknown), ``size_global`` (edge in units of the coordinate system).

    Squares of the windows are added to ``sdata.shapes["cell_crops"]``.

    Raises
    ------
    KeyError, ValueError
        An element, channel or column is missing or ambiguous (the message names what is there), or no cell is left.
    FileExistsError
        ``store`` exists.
    """
    params = {k: v for k, v in locals().items() if k not in ("sdata", "n_workers", "overwrite")}
    for name, value, low in (("size", size, 1), ("output_size", output_size, 1), ("border", border, 0)):
        check_range(name, value, low=low)
    check_choice("expression", expression, ("window", "cell"))
    if pixel_size is not None:
        check_range("pixel_size", pixel_size, low=0, open_low=True)
    workers = n_workers or os.cpu_count() or 1
    table = resolve_table(sdata, table_key)
    windowed = expression == "window"
    plan = plan_crops(
        sdata,
        table,
        center=center,
        channels=channels,
        image=image,
        points=points,
        labels=labels,
        need_points=windowed,
        coordinate_system=coordinate_system,
        pixel_size=pixel_size,
    )
    segmented = Segmented(table.X) if table.X is not None and table.n_vars else None
    if not windowed and segmented is None:
        msg = 'expression="cell" needs counts in the table, and its X is empty.'
        raise ValueError(msg)
    with scratch_folder() as scratch:
        output: Any = MemoryOutput(scratch)
        if store is not None:
            output = StoreOutput(store, _fingerprint(params, plan, table), overwrite=overwrite)
        grids = make_grids(plan.frames, size)
        spool = None
        if windowed:
            spool = Spool.reopen(output.spool_folder) if store is not None else None
            if spool is None:
                if output.spool_folder.exists() and store is not None:
                    for left in output.spool_folder.glob("*"):
                        left.unlink()
                spool = Spool(output.spool_folder)
                spool_points(
                    plan.frames,
                    grids,
                    table.var_names,
                    spool,
                    size=size,
                    min_qv=min_qv,
                    assigned_only=assigned_only,
                    n_workers=workers,
                )
                spool.close(to_disk=store is not None)
        kept, corners, frame_of, report = _choose(plan, table.n_obs, spool, size=size, border=border, pad=pad)
        shape = (len(kept), len(plan.channels), output_size, output_size)
        tile = np.empty(len(kept), np.int64)
        for f, grid in enumerate(grids):
            tile[frame_of == f] = grid.tile_of(corners[frame_of == f])
        tiles = [(int(t), np.flatnonzero(tile == t)) for t in np.unique(tile)]
        output.begin(shape, plan.dtype, len(tiles))
        done = output.done()
        jobs = [
            Job(
                number,
                plan.frames[frame_of[rows[0]]].image,
                plan.frames[frame_of[rows[0]]].channels,
                rows,
                corners[rows],
                size,
                output_size,
                spool.source(number) if spool is not None else None,
                table.n_vars,
                output.sink,
            )
            for number, rows in tiles
            if number not in done
        ]
        run_jobs(jobs, workers, local=output.local)
        adata = _describe(plan, table, kept, frame_of, _sample(sdata, table, sample, store), params, report, size)
        if segmented is not None:
            segmented.keep(kept)
        result = output.finish(adata, segmented, tiles)
    sdata.shapes.pop(CELL_CROPS, None)
    sdata.shapes[CELL_CROPS] = _squares(plan, result, corners, frame_of, size, coordinate_system)
    return result


def _choose(
    plan: Plan, n: int, spool: Spool | None, *, size: int, border: int, pad: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
    """Rows of the table that are kept, their windows' corners, their frames, and why others are not."""
    keep = np.zeros(n, bool)
    corners = np.zeros((n, 2), np.int64)
    frame_of = np.full(n, -1)
    report = {
        "cells": n,
        "kept": 0,
        "frames": len(plan.frames),
        "dropped_no_image": n - sum(len(f.rows) for f in plan.frames),
    }
    reasons = ("dropped_no_centre", "dropped_outside_image", "dropped_border", "dropped_outside_transcripts")
    report.update(dict.fromkeys(reasons, 0))
    for f, frame in enumerate(plan.frames):
        known = np.isfinite(frame.centres).all(axis=1)
        low = window_corners(np.where(known[:, None], frame.centres, 0.0), size)
        high = low + size
        full = (frame.width, frame.height)
        away = (high <= 0).any(axis=1) | (low >= full).any(axis=1)
        out = away if pad else (low < 0).any(axis=1) | (high > full).any(axis=1)
        near = (low < border).any(axis=1) & (border > 0)
        bare = np.zeros(len(low), bool)
        if spool is not None and not pad:
            area = spool.areas[f]
            bare |= area is None
            if area is not None:
                bare |= (low < area[:2]).any(axis=1) | (high > area[2:]).any(axis=1)
        good = np.ones(len(low), bool)
        for reason, bad in zip(reasons, (~known, out, near, bare), strict=True):
            report[reason] += int((bad & good).sum())
            good &= ~bad
        keep[frame.rows] = good
        corners[frame.rows] = low
        frame_of[frame.rows] = f
    kept = np.flatnonzero(keep)
    report["kept"] = len(kept)
    if spool is not None:
        report.update(spool.report)
    left = {k: v for k, v in report.items() if k.startswith("dropped") and v}
    logger.info("%d of %d cells kept%s", len(kept), n, f"; {left}" if left else "")
    if not len(kept):
        msg = f"no cell is left of {n}: {left}. A smaller size or border, or pad=True, keeps more."
        raise ValueError(msg)
    return kept, corners[kept], frame_of[kept], report


def _describe(
    plan: Plan,
    table: AnnData,
    kept: np.ndarray,
    frame_of: np.ndarray,
    sample: str | None,
    params: dict[str, Any],
    report: dict[str, int],
    size: int,
) -> AnnData:
    """All that is small of the result."""
    from anndata import AnnData

    obs = table.obs.iloc[kept].copy()
    attrs = table.uns.get("spatialdata_attrs", {})
    if "cell_id" not in obs:
        key = attrs.get("instance_key")
        obs["cell_id"] = obs[key].astype(str) if key in obs else obs.index.astype(str)
    if FOV not in obs:
        obs[FOV] = "slide"
    obs[FOV] = pd.Categorical(obs[FOV].astype(str))
    if sample is not None:
        obs[SAMPLE] = sample
    obs[SAMPLE] = pd.Categorical(obs[SAMPLE].astype(str))
    px = np.empty((len(kept), 2))
    world = np.empty((len(kept), 2))
    for f, frame in enumerate(plan.frames):
        here = np.flatnonzero(frame_of == f)
        px[here] = frame.centres[np.searchsorted(frame.rows, kept[here])]
        world[here] = to_system(px[here], frame.to_global)
    adata = AnnData(obs=obs, var=table.var.copy())
    adata.obsm[SPATIAL_PX] = px
    adata.obsm[SPATIAL] = world
    output_size = params["output_size"]
    scale = float(np.sqrt(abs(np.linalg.det(plan.frames[0].to_global[:2, :2]))))
    write_params(
        adata,
        CROPS,
        {**params, "store": None if params["store"] is None else str(params["store"]), "centres": plan.centre_source},
        report=report,
        channels=plan.channels,
        size=size,
        output_size=output_size,
        pixel_size=plan.pixel_size * size / output_size,
        size_global=size * scale,
    )
    return adata


def _sample(sdata: SpatialData, table: AnnData, sample: str | None, store: Any) -> str | None:
    """The slide's name; ``None`` if the table's own column holds."""
    if sample is not None:
        return sample
    if SAMPLE in table.obs:
        return None
    said = getattr(sdata, "attrs", {}).get(SST, {}).get("sample")
    return str(said) if said else Path(store).name.removesuffix(".zarr") if store is not None else "sample"


def _squares(
    plan: Plan, adata: AnnData, corners: np.ndarray, frame_of: np.ndarray, size: int, coordinate_system: str
) -> Any:
    """The windows as polygons: in px with the image's transformation, or (several images) in the coordinate system."""
    import geopandas as gpd
    import shapely
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Affine, Identity

    low = corners.astype(np.float64)
    boxes = shapely.box(low[:, 0], low[:, 1], low[:, 0] + size, low[:, 1] + size)
    axes = ("x", "y")
    transformation: Any = Affine(plan.frames[0].to_global, input_axes=axes, output_axes=axes)
    if plan.by_fov:
        for f, frame in enumerate(plan.frames):
            here = np.flatnonzero(frame_of == f)
            boxes[here] = shapely.transform(boxes[here], lambda xy, m=frame.to_global: to_system(xy, m))
        transformation = Identity()
    frame = gpd.GeoDataFrame(
        {"cell_id": adata.obs["cell_id"].astype(str).to_numpy(), "fov": adata.obs[FOV].astype(str).to_numpy()},
        geometry=boxes,
        index=adata.obs_names,
    )
    return ShapesModel.parse(frame, transformations={coordinate_system: transformation})


def _fingerprint(params: dict[str, Any], plan: Plan, table: AnnData) -> str:
    """Says whether an unfinished store holds the same cells with the same settings."""
    digest = hashlib.sha256(
        json.dumps({**params, "store": "", "version": _VERSION}, default=str, sort_keys=True).encode()
    )
    for frame in plan.frames:
        digest.update(
            f"{frame.view.image_name} {frame.view.points_name} {frame.image.shape} {frame.image.dtype}".encode()
        )
        digest.update(frame.to_px.tobytes() + frame.to_global.tobytes())
        digest.update(np.ascontiguousarray(frame.rows).tobytes() + np.ascontiguousarray(frame.centres).tobytes())
    for names in (table.obs_names, table.var_names):
        digest.update("\n".join(map(str, names)).encode())
    return digest.hexdigest()
