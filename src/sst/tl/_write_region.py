"""Edited cells back in their tissue, as an image of the SpatialData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_key, check_range, describe_options, resolve_subset
from sst.io import crop_reader
from sst.io.crops import (
    full_resolution,
    match_images,
    on_crop_scale,
    paste_crops,
    pick_channels,
    pixels_in,
    window_corners,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

MOST_PIXELS = 1 << 27


@checked
def write_region(
    sdata: SpatialData,
    adata: AnnData,
    *,
    key: str = _keys.EDITED,
    bounds: tuple[float, float, float, float] | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    image: str | None = None,
    fov: str | int | None = None,
    group: str | None = None,
    feather: float = 0.3,
    key_added: str | None = None,
) -> None:
    """Put cells' images into the picture that they were cut from and store it beside it.

    Parameters
    ----------
    sdata
        One slide, with the picture.
    adata
        Its cells (of several slides: choose this one's with ``subset``), images in ``obsm[key]``.
    key
        Which images: ``"edited"``, ``"generated"``, ``"crops"``, ...
    bounds
        x0, y0, x1, y1 in px of the picture; the box around the windows chosen if left out.
    subset
        Cells that are put in: a mask, an ``obs`` query, or ``{obs key: [categories]}``. All other cells stay as they were.
    image
        Name of the picture, if it is not found by itself.
    fov
        Field of view, if the slide has one picture each.
    group
        Group whose intensity limits the picture gets; found from the cells if left out.
    feather
        Width of the seams as a share of half a window.
    key_added
        Name of the new image (default: ``f"{key}_region"``).

    Returns
    -------
    ``None``; writes ``sdata.images[key_added]`` (c, y, x; uint8 on the scale of the rescaled crops), which lies in the same place as
    the original in every coordinate system, and ``adata.uns[key_added]["params"]``.

    Raises
    ------
    KeyError
        A slot, image or FOV is not there.
    ValueError
        No cell lies in the bounds, the region is too large, or cells of several fields of view or groups are chosen.
    """
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Sequence as Chain
    from spatialdata.transformations import Translation, get_transformation

    check_range("feather", feather, low=0, high=1)
    pixels = check_key(adata, "obsm", key)
    about = check_key(adata, "uns", _keys.CROPS, name="crops")
    rows = np.flatnonzero(resolve_subset(adata, subset) & _keys.drawn(adata, key))
    name, rows = _image_name(sdata, adata, rows, image, fov)
    size = int(about["size"])
    corners = window_corners(pixels_in(sdata, adata, name)[rows], size)
    element = sdata.images[name]
    lazy, there = full_resolution(element, name)
    picked = pick_channels(there, [str(c) for c in about["channels"]], name)
    x0, y0, x1, y1 = _box(bounds, corners, size, lazy.shape[1:])
    inside = (corners[:, 0] < x1) & (corners[:, 0] + size > x0) & (corners[:, 1] < y1) & (corners[:, 1] + size > y0)
    if not inside.any():
        msg = f"bounds={(x0, y0, x1, y1)} (x0, y0, x1, y1) hold none of the {len(rows)} cells chosen."
        raise ValueError(msg)
    rows, corners = rows[inside], corners[inside]
    background = np.asarray(lazy[picked, y0:y1, x0:x1])
    limits = about.get("limits")
    crops = crop_reader(pixels).take(rows)
    if crops.dtype != np.uint8 or limits is None:
        msg = f"obsm[{key!r}] or the crops are not on the 8-bit scale yet: call sst.pp.rescale_intensity first."
        raise ValueError(msg)
    background = on_crop_scale(background, limits, _group(adata, rows, limits, group))
    canvas = paste_crops(background, crops, corners - np.array([x0, y0]), size, feather=feather)
    move = Translation([float(x0), float(y0)], axes=("x", "y"))
    known = get_transformation(element, get_all=True)
    target = key_added or f"{key}_region"
    sdata.images[target] = Image2DModel.parse(
        canvas,
        dims=("c", "y", "x"),
        c_coords=[str(c) for c in about["channels"]],
        transformations={system: Chain([move, transformation]) for system, transformation in known.items()},
    )
    params: dict[str, Any] = {"key": key, "image": name, "bounds": [x0, y0, x1, y1], "feather": feather}
    _keys.write_params(adata, target, params | {"n_cells": len(rows)})


def _image_name(
    sdata: SpatialData, adata: AnnData, rows: np.ndarray, image: str | None, fov: str | int | None
) -> tuple[str, np.ndarray]:
    """The picture, and which of the rows belong to it."""
    found = match_images(sdata, adata[rows], image)
    if "" in found:
        return found[""], rows
    fovs = adata.obs[_keys.FOV].astype(str).to_numpy()[rows]
    if fov is None:
        if len(found) > 1:
            msg = (
                f"the cells chosen lie in {len(found)} fields of view: say which with fov=... {describe_options(found)}"
            )
            raise ValueError(msg)
        fov = next(iter(found))
    if str(fov) not in found:
        msg = f"fov={fov!r} has no picture among these cells. {describe_options(found, fov)}"
        raise KeyError(msg)
    return found[str(fov)], rows[fovs == str(fov)]


def _box(
    bounds: tuple[float, float, float, float] | None, corners: np.ndarray, size: int, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """Whole pixels of the picture."""
    if bounds is None:
        low, high = corners.min(0), corners.max(0) + size
        bounds = (low[0], low[1], high[0], high[1])
    if len(bounds) != 4 or not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        msg = f"bounds={bounds}: give x0 < x1 and y0 < y1 as (x0, y0, x1, y1), in px."
        raise ValueError(msg)
    x0, y0 = max(int(np.floor(bounds[0])), 0), max(int(np.floor(bounds[1])), 0)
    x1, y1 = min(int(np.ceil(bounds[2])), shape[1]), min(int(np.ceil(bounds[3])), shape[0])
    if x0 >= x1 or y0 >= y1:
        msg = f"bounds={bounds} lie outside the picture of {shape[1]} x {shape[0]} px."
        raise ValueError(msg)
    if (x1 - x0) * (y1 - y0) > MOST_PIXELS:
        msg = f"the region has {x1 - x0} x {y1 - y0} px: choose a smaller one with bounds=(x0, y0, x1, y1)."
        raise ValueError(msg)
    return x0, y0, x1, y1


def _group(adata: AnnData, rows: np.ndarray, limits: Mapping[str, Any], group: str | None) -> str:
    """The group whose limits hold here."""
    known = [str(g) for g in limits["low"]]
    if group is None:
        groupby = str(limits.get("groupby", ""))
        if not groupby or len(known) == 1:
            return known[0]
        here = sorted(set(check_key(adata, "obs", groupby, name="groupby").astype(str).to_numpy()[rows]))
        if len(here) > 1:
            msg = f"cells of several groups {here} are chosen, but this is one slide: choose its cells with subset=..."
            raise ValueError(msg)
        group = here[0]
    if group not in known:
        msg = f"group={group!r} has no intensity limits. {describe_options(known, group)}"
        raise KeyError(msg)
    return group
