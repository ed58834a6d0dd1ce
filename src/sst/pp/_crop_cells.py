"""Cut paired cells: an image and an expression vector of the same window around every cell."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sst._arguments import checked
from sst._keys import CELL_CROPS, FOV, SAMPLE, SPATIAL_PX, SST, TABLE
from sst._validate import check_choice, check_range, resolve_table
from sst.io.crops import (
    Plan,
    Segmented,
    WindowOptions,
    open_output,
    pair_cells,
    plan_crops,
    to_system,
    window_corners,
)
from sst.io.store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_VERSION = 2


@checked
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
    coordinate_system: str | None = None,
    pixel_size: float | None = None,
    brightfield: bool | None = None,
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
        Names of the elements, if they are not found by themselves (of several images: ``image``, ``morphology_focus``,
        ``morphology_mip``, or the only ``..._full_image``); ``{fov}`` stands for the FOV. With ``labels``, cells are
        centred on the centroids of these labels.
    table_key
        Name of the table.
    sample
        Name of the slide, for ``obs["sample"]``: by default the table's, the reader's, or the store's name.
    coordinate_system
        Coordinate system that the elements share (``None``: ``"global"``; where the image has no such, the one that has the image as
        it is, or the only one).
    pixel_size
        Micrometres per pixel of the image (finest scale); by default what the reader or ``sdata.attrs["pixel_size"]`` says,
        else the scale between the transcripts (taken to be in micrometres) and the image, where it is below one, or the size of
        the bins that the table's region is named after (``"square_008um"``).
    brightfield
        Whether the image is stained tissue in transmitted light, such as H&E, in red, green and blue: its colours are then drawn as they
        are and rescaled together, and nuclei are what is dark (``None``: so if it is 8-bit, its channels are named r, g, b, and it is
        light where the cells are).
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
        and all columns of the table; so are its other ``obsm``, ``layers``, ``obsp``, ``varm`` and ``raw``.
    ``uns["crops"]``
        ``params``, ``report`` (cells and transcripts left out, by reason), ``channels``, ``size``, ``output_size``,
        ``pixel_size`` (um per pixel of a crop, 0 if unknown), ``size_global`` (edge in units of the coordinate system), and
        ``brightfield`` where that is true.

    Squares of the windows are added to ``sdata.shapes["cell_crops"]``.

    Raises
    ------
    KeyError, ValueError
        An element, channel or column is missing or ambiguous (the message names what is there), or no cell is left.
    FileExistsError
        ``store`` exists.
    """
    for name, value, low in (("size", size, 1), ("output_size", output_size, 1), ("border", border, 0)):
        check_range(name, value, low=low)
    check_choice("expression", expression, ("window", "cell"))
    if pixel_size is not None:
        check_range("pixel_size", pixel_size, low=0, open_low=True)
    params = {
        "size": size,
        "output_size": output_size,
        "channels": channels,
        "center": center,
        "expression": expression,
        "border": border,
        "min_qv": min_qv,
        "assigned_only": assigned_only,
        "pad": pad,
        "image": image,
        "points": points,
        "labels": labels,
        "table_key": table_key,
        "sample": sample,
        "coordinate_system": coordinate_system,
        "pixel_size": pixel_size,
        "brightfield": brightfield,
    }
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
        brightfield=brightfield,
    )
    params["coordinate_system"] = plan.system
    if not plan.by_fov:
        params["image"] = plan.frames[0].view.image_name
    segmented = Segmented(table.X) if table.X is not None and table.n_vars else None
    if not windowed and segmented is None:
        msg = 'expression="cell" needs counts in the table, and its X is empty.'
        raise ValueError(msg)
    options = WindowOptions(size, output_size, border, pad, windowed, min_qv, assigned_only)
    with open_output(store, _fingerprint(params, plan, table), overwrite=overwrite) as output:
        if store is not None and output.finished:
            result = open_store(store)
        else:
            result = pair_cells(
                plan,
                table,
                options,
                segmented,
                output,
                params=params | {"store": None if store is None else str(store)},
                sample=_sample(sdata, table, sample, store),
                workers=n_workers or os.cpu_count() or 1,
            )
    sdata.shapes.pop(CELL_CROPS, None)
    sdata.shapes[CELL_CROPS] = _squares(plan, result, size, plan.system)
    return result


def _sample(sdata: SpatialData, table: AnnData, sample: str | None, store: Any) -> str | None:
    """The slide's name; ``None`` if the table's own column holds."""
    if sample is not None:
        return sample
    if SAMPLE in table.obs:
        return None
    said = getattr(sdata, "attrs", {}).get(SST, {}).get("sample")
    return str(said) if said else Path(store).name.removesuffix(".zarr") if store is not None else "sample"


def _squares(plan: Plan, adata: AnnData, size: int, coordinate_system: str) -> Any:
    """The windows as polygons: in px with the image's transformation, or (several images) in the coordinate system."""
    import geopandas as gpd
    import shapely
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Affine, Identity

    low = window_corners(adata.obsm[SPATIAL_PX], size).astype(np.float64)
    boxes = shapely.box(low[:, 0], low[:, 1], low[:, 0] + size, low[:, 1] + size)
    axes = ("x", "y")
    transformation: Any = Affine(plan.frames[0].to_global, input_axes=axes, output_axes=axes)
    fov = adata.obs[FOV].astype(str).to_numpy()
    if plan.by_fov:
        for frame in plan.frames:
            here = np.flatnonzero(fov == frame.key)
            boxes[here] = shapely.transform(boxes[here], lambda xy, m=frame.to_global: to_system(xy, m))
        transformation = Identity()
    table = gpd.GeoDataFrame(
        {"cell_id": adata.obs["cell_id"].astype(str).to_numpy(), "fov": fov}, geometry=boxes, index=adata.obs_names
    )
    return ShapesModel.parse(table, transformations={coordinate_system: transformation})


def _fingerprint(params: dict[str, Any], plan: Plan, table: AnnData) -> str:
    """Says whether an unfinished store holds the same cells with the same settings."""
    digest = hashlib.sha256(json.dumps({**params, "version": _VERSION}, default=str, sort_keys=True).encode())
    for frame in plan.frames:
        digest.update(
            f"{frame.view.image_name} {frame.view.points_name} {frame.image.shape} {frame.image.dtype}".encode()
        )
        digest.update(frame.to_px.tobytes() + frame.to_global.tobytes())
        digest.update(np.ascontiguousarray(frame.rows).tobytes() + np.ascontiguousarray(frame.centres).tobytes())
    for names in (table.obs_names, table.var_names):
        digest.update("\n".join(map(str, names)).encode())
    return digest.hexdigest()
