"""Where each field of view lies: a global system in micrometres, rows down, origin at the upper left FOV."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst._settings import logger

from ._csv import read_csv
from ._layout import QUIRKS

if TYPE_CHECKING:
    from pathlib import Path

    from sst.io._read_log import ReadLog


@dataclass
class Placement:
    """Upper left corners of the FOVs.

    Attributes
    ----------
    corners
        FOV -> (x, y) in px of the mosaic, all >= 0 where all FOVs are read.
    source
        ``"positions (px)"``, ``"positions (mm)"``, ``"cells"`` or ``"side by side"``.
    origin, direction
        Global px of the vendor = origin + direction * px of the mosaic, for x and y.
    """

    corners: dict[int, tuple[float, float]]
    source: str
    origin: tuple[float, float] = (0.0, 0.0)
    direction: tuple[int, int] = (1, 1)


def read_positions(path: Path, log: ReadLog) -> pd.DataFrame:
    """The positions file: index FOV, columns ``x_global``, ``y_global`` (px) and ``x_mm``, ``y_mm``, those it has.

    Raises
    ------
    ValueError
        Neither px nor mm; one FOV at two places.
    """
    table = read_csv(path)
    names = list(table.columns)
    fov = QUIRKS.column("fov", names, file=path, required=False)
    found = {w: QUIRKS.column(w, names, file=path, required=False) for w in ("x_global", "y_global", "x_mm", "y_mm")}
    out = pd.DataFrame({w: pd.to_numeric(table[c], errors="coerce") for w, c in found.items() if c})
    if not {"x_global", "y_global"} <= set(out) and not {"x_mm", "y_mm"} <= set(out):
        msg = f"{path}: no positions in px (x_global_px, y_global_px) or mm (x_global_mm or X_mm). It has {names}."
        raise ValueError(msg)
    if fov is None:
        logger.warning("%s has no column of FOVs: its rows are taken to be FOVs 1 to %d, in order", path, len(out))
    out["fov"] = np.arange(1, len(out) + 1) if fov is None else pd.to_numeric(table[fov], errors="coerce")
    pairs = [p for p in (["x_global", "y_global"], ["x_mm", "y_mm"]) if set(p) <= set(out)]
    bad = out["fov"].isna() | np.logical_and.reduce([out[p].isna().any(axis=1) for p in pairs])
    log.skip("rows of the positions file", int(bad.sum()), "no FOV or no position")
    out = out.loc[~bad].drop_duplicates()
    if out["fov"].duplicated().any():
        msg = f"{path}: FOV {int(out.loc[out['fov'].duplicated(), 'fov'].iloc[0])} has two positions."
        raise ValueError(msg)
    return out.set_index(out.pop("fov").astype(int))


def pixel_size_of(positions: pd.DataFrame | None, obs: pd.DataFrame, shape: tuple[int, int], layout: str) -> float:
    """Micrometres a pixel: px against mm in the positions or the cells, else the instrument's by FOV shape; 0 if unknown."""
    tables = [obs] if positions is None else [positions, obs]
    for table in tables:
        if not {"x_global", "x_mm"} <= set(table):
            continue
        for axis in "xy":
            px, mm = table[f"{axis}_global"].to_numpy(float), table[f"{axis}_mm"].to_numpy(float)
            good = np.isfinite(px) & np.isfinite(mm)
            if good.sum() > 1 and np.ptp(px[good]) > 0:
                slope = abs(float(np.polyfit(px[good] - px[good].mean(), mm[good], 1)[0])) * 1000
                if 0.01 < slope < 2:
                    return round(slope, 6)
            if table is positions and good.sum() and np.all(np.abs(px[good]) > 0):
                ratio = float(np.median(np.abs(mm[good] / px[good]))) * 1000
                if 0.01 < ratio < 2:
                    return round(ratio, 6)
    if "x_mm" in obs:  # millimetres against local px, FOV by FOV
        frame = obs[["fov", "x", "x_mm"]].dropna()
        x, mm = (frame[c] - frame.groupby("fov")[c].transform("mean") for c in ("x", "x_mm"))
        slope = abs(float((x * mm).sum() / max(float((x * x).sum()), 1e-12))) * 1000
        if 0.01 < slope < 2:
            return round(slope, 5)
    if shape in QUIRKS.pixel_sizes:
        return QUIRKS.pixel_sizes[shape]
    return QUIRKS.old_pixel_size if layout == "flat" else 0.0


def cell_offsets(obs: pd.DataFrame, pixel_size: float) -> tuple[dict[int, tuple[float, float]], tuple[int, int]]:
    """From cells with local and global coordinates: FOV -> global minus sense times local px, and the sense of x and y."""
    if {"x_global", "y_global"} <= set(obs):
        gx, gy = obs["x_global"].to_numpy(float), obs["y_global"].to_numpy(float)
    elif {"x_mm", "y_mm"} <= set(obs) and pixel_size > 0:
        gx, gy = (obs[c].to_numpy(float) * 1000 / pixel_size for c in ("x_mm", "y_mm"))
    else:
        return {}, (0, 0)
    frame = pd.DataFrame(
        {"fov": obs["fov"].to_numpy(), "x": obs["x"].to_numpy(), "y": obs["y"].to_numpy(), "gx": gx, "gy": gy}
    )
    frame = frame[np.isfinite(frame).all(axis=1)]
    if frame.empty:
        return {}, (0, 0)
    centred = frame - frame.groupby("fov").transform("mean").assign(fov=0)
    sx, sy = (int(np.sign((centred[a] * centred["g" + a]).sum())) for a in "xy")
    if not sx or not sy:
        return {}, (0, 0)
    frame["ox"], frame["oy"] = frame["gx"] - sx * frame["x"], frame["gy"] - sy * frame["y"]
    centre = frame.groupby("fov")[["ox", "oy"]].median()
    return {int(f): (float(r.ox), float(r.oy)) for f, r in zip(centre.index, centre.itertuples(), strict=True)}, (
        sx,
        sy,
    )


def place(
    fovs: list[int],
    positions: pd.DataFrame | None,
    offsets: dict[int, tuple[float, float]],
    sense: tuple[int, int],
    shape: tuple[int, int],
    *,
    up: bool,
    pixel_size: float,
    log: ReadLog,
) -> Placement:
    """Upper left corners of the FOVs in px, from the positions file, else from cells or transcripts, else side by side."""
    height, width = shape
    anchors, source = _anchors(positions, offsets, pixel_size)
    sx, sy = (s or 1 for s in sense)
    missing = [f for f in fovs if f not in anchors]
    if missing and anchors and all(f in offsets for f in missing) and (common := [f for f in anchors if f in offsets]):
        delta = np.median([np.subtract(anchors[f], offsets[f]) for f in common], axis=0)
        for f in missing:
            anchors[f] = (float(offsets[f][0] + delta[0]), float(offsets[f][1] + delta[1]))
        log.skip("FOVs in the positions file", len(missing), f"missing; placed by their cells: {missing[:5]}")
        missing = []
    if missing:
        if anchors:
            msg = f"FOVs {missing[:10]} have no position and no global coordinates; leave them out with fovs=."
            raise ValueError(msg)
        columns = int(np.ceil(np.sqrt(len(fovs))))
        logger.warning("no positions and no global coordinates: FOVs are laid side by side")
        return Placement(
            {f: ((i % columns) * width * 1.0, (i // columns) * height * 1.0) for i, f in enumerate(fovs)},
            "side by side",
        )
    # global = anchor + sense * local; the row is y or height - y. Turn the vendor's axes so that columns and rows rise.
    dx, dy = sx, (-sy if up else sy)
    top = {f: (dx * a[0], dy * (a[1] + (sy * height if up else 0))) for f, a in anchors.items()}
    low = np.min(list(top.values()), axis=0)
    corners = {f: (float(t[0] - low[0]), float(t[1] - low[1])) for f, t in top.items() if f in set(fovs)}
    _warn_overlap(corners, shape)
    return Placement(corners, source, (float(dx * low[0]), float(dy * low[1])), (dx, dy))


def _anchors(
    positions: pd.DataFrame | None, offsets: dict[int, tuple[float, float]], pixel_size: float
) -> tuple[dict[int, tuple[float, float]], str]:
    if positions is None:
        return dict(offsets), "cells"
    if {"x_global", "y_global"} <= set(positions):
        table, source = positions[["x_global", "y_global"]], "positions (px)"
    elif pixel_size > 0:
        table, source = positions[["x_mm", "y_mm"]] * (1000 / pixel_size), "positions (mm)"
    else:
        logger.warning("positions are in mm and the pixel size is unknown: pass pixel_size=")
        return dict(offsets), "cells"
    xy = {int(f): np.array(v, dtype=float) for f, v in zip(table.index, table.to_numpy(), strict=True)}
    common = [f for f in xy if f in offsets]
    if len(common) > 1:  # the stage may run the other way, or be turned: compare with the cells' own global coordinates
        a, b = np.array([xy[f] for f in common]), np.array([offsets[f] for f in common])
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        options = [(swap, signs) for swap in (False, True) for signs in product((1, -1), (1, -1))]
        turn = lambda v, swap, signs: (v[..., ::-1] if swap else v) * np.array(signs)
        error = {o: float(np.abs(turn(a, *o) - b).max()) for o in options}
        best = min(options, key=lambda o: (round(error[o], 3), options.index(o)))
        if best != options[0]:
            logger.info("positions run otherwise than the cells' global coordinates: swapped %s, signs %s", *best)
        if error[best] > 50:
            logger.warning("positions and cells' global coordinates differ by up to %.0f px", error[best])
        xy = {f: turn(v, *best) for f, v in xy.items()}
    return {f: (float(v[0]), float(v[1])) for f, v in xy.items()}, source


def _warn_overlap(corners: dict[int, tuple[float, float]], shape: tuple[int, int]) -> None:
    xy = np.array(list(corners.values()))
    if len(xy) < 2:
        return
    from scipy.spatial import cKDTree

    near = cKDTree(xy / np.array([shape[1], shape[0]])).query_pairs(0.5, p=np.inf)
    if near:
        logger.warning(
            "%d pairs of FOVs overlap by more than half: are the positions and the pixel size right?", len(near)
        )
