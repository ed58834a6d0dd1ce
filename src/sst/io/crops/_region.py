"""A part of a slide as pictures: the tissue, the labels' cells, and crops painted in place, all on one grid of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._keys import CROPS, FOV, SAMPLE, SPATIAL, SPATIAL_PX, SST, TABLE
from sst._validate import check_key, describe_options
from sst.io.store import crop_reader

from ._evidence import single_scale
from ._paste import on_crop_scale, paste_crops
from ._plan import full_resolution, match_images, match_points, pick_channels
from ._transform import systems, to_pixels
from ._view import view_image
from ._windows import window_corners

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_MOST_PIXELS = 6000 * 6000


@dataclass(frozen=True)
class Region:
    """A rectangle of one image.

    Attributes
    ----------
    rows
        Rows of the paired object whose windows meet it.
    corners
        Their windows' low corners (x, y) in px of the image.
    size
        Edge of a window in px.
    bounds
        x0, y0, x1, y1 in px of the image.
    fov
        FOV of the image, ``""`` where the slide is one image.
    """

    rows: np.ndarray
    corners: np.ndarray
    size: int
    bounds: tuple[int, int, int, int]
    fov: str

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.bounds[3] - self.bounds[1], self.bounds[2] - self.bounds[0]


def find_region(
    adata: AnnData,
    *,
    fov: str | None,
    sample: str | None,
    bounds: Sequence[float] | None,
    extent: tuple[int, int] | None = None,
    by_fov: bool | None = None,
    px: np.ndarray | None = None,
) -> Region:
    """The rectangle asked for, and the paired cells whose windows meet it.

    Parameters
    ----------
    adata
        Paired cells.
    fov
        FOV, needed where there are several images; then ``obs["fov"]`` says which cells lie in it.
    sample
        Slide, needed where the object holds several.
    bounds
        x0, y0, x1, y1 in px of the image; ``None``: as far as the windows reach.
    extent
        Height and width of the image, beyond which nothing is shown.
    by_fov
        Whether every FOV is an image of its own; ``None``: as said by ``fov``.
    px
        Centres in px of the image, by default ``obsm["spatial_px"]``.
    """
    size = adata.uns.get(CROPS, {}).get("size")
    if size is None:
        msg = f"uns[{CROPS!r}]['size'] is missing: this object does not come from sst.pp.crop_cells."
        raise KeyError(msg)
    here = np.ones(adata.n_obs, bool)
    for name, column, value in (("sample", SAMPLE, sample), ("fov", FOV, fov)):
        if value is not None:
            values = check_key(adata, "obs", column, name=name).astype(str).to_numpy()
            if str(value) not in set(values):
                msg = f"{name}={value!r} has no cells. {describe_options(sorted(set(values)), value)}"
                raise KeyError(msg)
            here &= values == str(value)
        elif column in adata.obs and (name == "sample" or by_fov):
            known = adata.obs[column][here].astype(str).unique()
            if len(known) > 1:
                msg = f"the cells lie in several images: say which with {name}=... {describe_options(sorted(known))}"
                raise ValueError(msg)
    size = int(size)
    corners = window_corners(check_key(adata, "obsm", SPATIAL_PX) if px is None else px, size)
    if bounds is None:
        low, high = corners[here].min(axis=0), corners[here].max(axis=0) + size
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    elif len(bounds) != 4:
        msg = f"bounds={bounds!r}: give (x0, y0, x1, y1), in px."
        raise ValueError(msg)
    else:
        box = tuple(int(b) for b in (*np.floor(bounds[:2]), *np.ceil(bounds[2:])))  # type: ignore[assignment]
    if extent is not None:
        box = (max(box[0], 0), max(box[1], 0), min(box[2], extent[1]), min(box[3], extent[0]))
    if box[0] >= box[2] or box[1] >= box[3]:
        msg = f"bounds={bounds!r} hold no pixel of the image (x0, y0, x1, y1); cells lie in {box}."
        raise ValueError(msg)
    if (box[2] - box[0]) * (box[3] - box[1]) > _MOST_PIXELS:
        msg = f"the region is {box[2] - box[0]} x {box[3] - box[1]} px: give bounds=(x0, y0, x1, y1)."
        raise ValueError(msg)
    meets = (corners < box[2:]).all(axis=1) & (corners + size > box[:2]).all(axis=1)
    rows = np.flatnonzero(here & meets)
    return Region(rows, corners[rows], size, box, "" if fov is None else str(fov))


def read_tissue(
    sdata: SpatialData, adata: AnnData, region_fov: str | None, image: str | None
) -> tuple[Any, list[int], str, np.ndarray]:
    """The image of a region (lazy, c x y x x), the indices of the object's channels in it, its FOV, and the cells' places in it."""
    names = match_images(sdata, adata, image)
    key = "" if "" in names else str(region_fov)
    if key not in names:
        msg = f"fov={region_fov!r}: say which field of view. {describe_options(names, region_fov)}"
        raise KeyError(msg)
    array, there = full_resolution(sdata.images[names[key]], names[key])
    wanted = [str(c) for c in adata.uns.get(CROPS, {}).get("channels", there)]
    return array, pick_channels(there, wanted, names[key]), key, pixels_in(sdata, adata, names[key])


def pixels_in(sdata: SpatialData, adata: AnnData, image_name: str) -> np.ndarray:
    """Centres (x, y) of paired cells in pixels of an image, n x 2: also where a query has cut it since the cells were cut."""
    px = np.asarray(check_key(adata, "obsm", SPATIAL_PX), dtype=np.float64)
    whole = getattr(sdata, "attrs", {}).get(SST, {}).get("extent", {}).get(image_name)
    element = sdata.images[image_name]
    shape = single_scale(element).shape[-2:]
    system = str(adata.uns.get(CROPS, {}).get("params", {}).get("coordinate_system", "global"))
    if whole is None or tuple(whole) == tuple(shape) or SPATIAL not in adata.obsm or system not in systems(element):
        return px
    fov = image_name.removesuffix("_image") if image_name.endswith("_image") else ""
    table = sdata.tables.get(TABLE, adata)
    view = view_image(sdata, table, image_name, match_points(sdata, None, fov, need=False), shape, system)
    return to_pixels(np.asarray(adata.obsm[SPATIAL], dtype=np.float64)[:, :2], view.to_image)


def cut_region(array: Any, region: Region, channels: list[int] | None = None) -> np.ndarray:
    """Pixels of the region: c x h x w of an image, h x w of labels."""
    a, c, b, d = region.bounds
    part = array[..., c:d, a:b]
    if channels is not None:
        part = part[channels]
    return np.asarray(part)


def paint_region(
    images: Any, region: Region, rows: np.ndarray, base: np.ndarray, *, feather: float, scale: Callable | None = None
) -> np.ndarray:
    """Images of the cells ``rows`` put in their places (:func:`paste_crops`).

    Parameters
    ----------
    images
        n x c x h x w, all cells of the object.
    region
        Where.
    rows
        Which of ``region.rows`` to paint.
    base
        What lies beneath, c x height x width, 0..255.
    feather
        Width of the seams, as a share of half a window.
    scale
        Applied to images that are not 8-bit.
    """
    which = np.flatnonzero(np.isin(region.rows, rows))
    base = np.clip(np.rint(base), 0, 255).astype(np.uint8)
    if not len(which):
        return base
    crops = crop_reader(images).take(region.rows[which])
    if scale is not None:
        crops = np.clip(np.rint(scale(crops)), 0, 255).astype(np.uint8)
    corners = region.corners[which] - region.bounds[:2]
    return paste_crops(base, crops, corners, region.size, feather=feather)


def rescale_like(pixels: np.ndarray, adata: AnnData, group: str | None) -> np.ndarray | None:
    """Raw pixels on the scale of the object's rescaled crops (uint8); ``None`` if it has no limits.

    ``group`` is the slide's, needed where the limits were found for several.
    """
    limits = adata.uns.get(CROPS, {}).get("limits")
    if limits is None:
        return None
    if group is None or str(group) not in limits["low"]:
        group = next(iter(limits["low"])) if len(limits["low"]) == 1 else None
    return None if group is None else on_crop_scale(pixels, limits, str(group))
