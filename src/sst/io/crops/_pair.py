"""Cells and what is in their windows, brought together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst._keys import BRIGHTFIELD, CROPS, FOV, SAMPLE, SEGMENTED, SPATIAL, SPATIAL_PX, write_params
from sst._settings import logger
from sst._strings import plain_strings

from ._cut import Job, run_jobs
from ._spool import Spool, make_grids, spool_points
from ._transform import to_system
from ._windows import window_corners

if TYPE_CHECKING:
    from anndata import AnnData

    from ._options import WindowOptions
    from ._out import MemoryOutput, Segmented, StoreOutput
    from ._plan import Plan

_OWN_OBSM = (CROPS, SPATIAL, SPATIAL_PX)


def pair_cells(
    plan: Plan,
    table: AnnData,
    options: WindowOptions,
    segmented: Segmented | None,
    output: MemoryOutput | StoreOutput,
    *,
    params: dict[str, Any],
    sample: str | None,
    workers: int,
) -> AnnData:
    """Cut every cell's window and count what is in it.

    Parameters
    ----------
    plan
        The images, and where the cells lie in them.
    table
        The cells.
    options
        What is cut and counted.
    segmented
        Counts of the segmented cells, if there are any.
    output
        Where the cells go.
    params
        Of the call, for ``uns``.
    sample
        Name of the slide; ``None`` if the table says it.
    workers
        Threads or processes.
    """
    size = options.size
    grids = make_grids(plan.frames, size)
    spool = None
    if options.windowed:
        spool = Spool.reopen(output.spool_folder)
        if spool is None:
            spool = Spool(output.spool_folder)
            spool_points(plan.frames, grids, table, spool, options, n_workers=workers)
            spool.close(to_disk=not output.local)
    kept, corners, frame_of, report = _choose(plan, table.n_obs, spool, options)
    tile = np.empty(len(kept), np.int64)
    for f, grid in enumerate(grids):
        tile[frame_of == f] = grid.tile_of(corners[frame_of == f])
    tiles = [(int(t), np.flatnonzero(tile == t)) for t in np.unique(tile)]
    output.begin((len(kept), len(plan.channels), options.output_size, options.output_size), plan.dtype, len(tiles))
    done = output.done()
    jobs = [
        Job(
            number,
            plan.frames[frame_of[rows[0]]].image,
            plan.frames[frame_of[rows[0]]].channels,
            rows,
            corners[rows],
            size,
            options.output_size,
            spool.source(number) if spool is not None else None,
            table.n_vars,
            output.sink,
        )
        for number, rows in tiles
        if number not in done
    ]
    run_jobs(jobs, workers, local=output.local)
    adata = _describe(plan, table, kept, frame_of, sample)
    scale = float(np.sqrt(abs(np.linalg.det(plan.frames[0].to_global[:2, :2]))))
    write_params(
        adata,
        CROPS,
        {**params, "centres": plan.centre_source},
        report=report,
        channels=plan.channels,
        size=size,
        output_size=options.output_size,
        pixel_size=plan.pixel_size * size / options.output_size,
        size_global=size * scale,
        **({BRIGHTFIELD: True} if plan.brightfield else {}),
    )
    if segmented is not None:
        segmented.keep(kept)
    return output.finish(adata, segmented, tiles)


def _choose(
    plan: Plan, n: int, spool: Spool | None, options: WindowOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
    """Rows of the table that are kept, their windows' corners, their frames, and why others are not."""
    size, border, pad = options.size, options.border, options.pad
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


def _describe(plan: Plan, table: AnnData, kept: np.ndarray, frame_of: np.ndarray, sample: str | None) -> AnnData:
    """All that the table has of the cells kept, and where they are."""
    from anndata import AnnData

    obs = table.obs.iloc[kept].copy()
    attrs = table.uns.get("spatialdata_attrs", {})
    if "cell_id" not in obs:
        key = attrs.get("instance_key")
        obs["cell_id"] = obs[key].astype(str) if key in obs else obs.index.astype(str)
    if obs.index.name in obs:  # joined slides get other names of cells, and files do not take two meanings of one name
        obs.index.name = None
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
    adata = AnnData(obs=plain_strings(obs), var=plain_strings(table.var))
    _keep_rows(adata, table, kept)
    adata.obsm[SPATIAL_PX] = px
    adata.obsm[SPATIAL] = world
    return adata


def _keep_rows(adata: AnnData, table: AnnData, kept: np.ndarray) -> None:
    """Everything else of the table that has a row a cell, and what it has of genes."""
    from anndata import AnnData

    for key, value in table.obsm.items():
        if key not in _OWN_OBSM:
            adata.obsm[key] = plain_strings(value.iloc[kept]) if hasattr(value, "iloc") else value[kept]
    for key, value in table.layers.items():
        if key is not None and key != SEGMENTED:
            adata.layers[key] = value[kept]
    for key, value in table.obsp.items():
        adata.obsp[key] = value[kept][:, kept]
    for key, value in table.varm.items():
        adata.varm[key] = value
    if table.raw is not None:
        raw = AnnData(table.raw.X[kept], obs=adata.obs[[]], var=plain_strings(table.raw.var))
        adata.raw = raw
