"""Find the images, the transcripts and the cells' centres of any SpatialData, all in pixels of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._keys import FOV, SST
from sst._settings import logger
from sst._validate import describe_options

from ._centres import find_centres
from ._transform import affine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_IMAGES = ("image", "morphology_focus", "morphology_mip")
_POINTS = ("points", "transcripts")
_GENE_COLUMNS = ("gene", "feature_name", "target", "genes", "feature")


@dataclass
class Frame:
    """One image, its transcripts and its cells.

    Attributes
    ----------
    key
        FOV, or ``""`` for an image of the whole slide.
    image_name, points_name
        Names of the elements.
    image
        c x y x x, lazy or not, all channels.
    channels
        Indices of the channels wanted.
    points
        Lazy dataframe of the transcripts, or ``None``.
    to_px
        3 x 3 matrix from the transcripts' coordinates (x, y) to pixels of the image.
    to_global
        3 x 3 matrix from pixels of the image to the coordinate system.
    rows
        Rows of the table that lie in this image.
    centres
        Their centres in px (x, y); NaN where there is none.
    """

    key: str
    image_name: str
    points_name: str
    image: Any
    channels: list[int]
    points: Any
    to_px: np.ndarray
    to_global: np.ndarray
    rows: np.ndarray
    centres: np.ndarray

    @property
    def height(self) -> int:
        """Rows of the image."""
        return int(self.image.shape[1])

    @property
    def width(self) -> int:
        """Columns of the image."""
        return int(self.image.shape[2])


@dataclass
class Plan:
    """All frames of an object, and what holds for all of them."""

    frames: list[Frame]
    channels: list[str]
    dtype: np.dtype
    pixel_size: float  # um per pixel of the image, 0 if unknown
    centre_source: str
    by_fov: bool


def plan_crops(
    sdata: SpatialData,
    table: AnnData,
    *,
    center: str,
    channels: Sequence[str | int] | None,
    image: str | None,
    points: str | None,
    labels: str | None,
    need_points: bool,
    coordinate_system: str,
) -> Plan:
    """Match elements, table and transformations.

    With ``obs["fov"]`` and an image per FOV (``"{fov}_image"``, or a pattern with ``{fov}`` in ``image``) every FOV is a
    frame; else there is one.
    """
    image_names = match_images(sdata, table, image)
    by_fov = "" not in image_names
    frames: list[Frame] = []
    names: list[str] | None = None
    source = ""
    fov_of = table.obs[FOV].astype(str).to_numpy() if by_fov else np.full(table.n_obs, "")
    for key, image_name in image_names.items():
        array, here = full_resolution(sdata.images[image_name], image_name)
        picked = pick_channels(here, channels, image_name)
        chosen = [here[i] for i in picked]
        if names is not None and chosen != names:
            msg = f"image {image_name!r} has channels {chosen}, others have {names}."
            raise ValueError(msg)
        names = chosen
        to_global = affine(sdata.images[image_name], image_name, coordinate_system)
        points_name = _match_points(sdata, points, key, need=need_points)
        to_px = np.eye(3)
        if points_name:
            moved = affine(sdata.points[points_name], points_name, coordinate_system)
            to_px = np.linalg.solve(to_global, moved)
            to_px[np.abs(to_px - np.round(to_px)) < 1e-9] = np.round(to_px)[np.abs(to_px - np.round(to_px)) < 1e-9]
        rows = np.flatnonzero(fov_of == key)
        centres, source = find_centres(
            sdata,
            table[rows] if by_fov else table,
            center=center,
            to_px=to_px if points_name else None,
            to_global=to_global,
            labels=labels.format(fov=key) if labels else None,
            coordinate_system=coordinate_system,
        )
        frames.append(
            Frame(
                key,
                image_name,
                points_name,
                array,
                picked,
                sdata.points[points_name] if points_name else None,
                to_px,
                to_global,
                rows,
                centres,
            )  # fmt: skip
        )
    if sum(len(f.rows) for f in frames) == 0:
        msg = f"no cell of the table lies in the images {list(image_names.values())[:5]}."
        raise ValueError(msg)
    dtypes = {np.dtype(f.image.dtype) for f in frames}
    if len(dtypes) > 1:
        msg = f"the images have different types: {sorted(map(str, dtypes))}."
        raise ValueError(msg)
    logger.info("centres from %s; %d image(s), channels %s", source, len(frames), names)
    return Plan(frames, names or [], dtypes.pop(), _pixel_size(sdata, table, frames), source, by_fov)


def gene_column(points: Any, name: str) -> str:
    """The column of the transcripts that names the gene."""
    key = points.attrs.get("spatialdata_attrs", {}).get("feature_key") if hasattr(points, "attrs") else None
    for column in (key, *_GENE_COLUMNS):
        if column is not None and column in points.columns:
            return str(column)
    msg = f"points {name!r} have no column of gene names. {describe_options(points.columns)}"
    raise KeyError(msg)


def match_images(sdata: SpatialData, table: AnnData, image: str | None) -> dict[str, str]:
    """Frame key -> image name."""
    there = list(sdata.images.keys())
    if not there:
        msg = "this SpatialData has no images."
        raise KeyError(msg)
    pattern = image if image is not None and "{fov}" in image else ("{fov}_image" if image is None else None)
    if pattern is not None and FOV in table.obs:
        fovs = sorted(table.obs[FOV].astype(str).unique())
        found = {fov: pattern.format(fov=fov) for fov in fovs if pattern.format(fov=fov) in there}
        if found:
            if len(found) < len(fovs):
                lost = [fov for fov in fovs if fov not in found]
                logger.warning("%d FOVs of the table have no image and are left out: %s", len(lost), lost[:10])
            return found
    if image is not None:
        if image not in there:
            msg = f"image={image!r} is not an image of this SpatialData. {describe_options(there, image)}"
            raise KeyError(msg)
        return {"": image}
    for name in _IMAGES:
        if name in there:
            return {"": name}
    if len(there) > 1:
        msg = f"several images: say which with image=... {describe_options(there)}"
        raise ValueError(msg)
    return {"": there[0]}


def _match_points(sdata: SpatialData, points: str | None, fov: str, *, need: bool) -> str:
    there = list(sdata.points.keys())
    if points is not None:
        name = points.format(fov=fov)
        if name not in there:
            msg = f"points={points!r}: {name!r} is not among the points of this SpatialData. {describe_options(there, name)}"
            raise KeyError(msg)
        return name
    if fov and f"{fov}_points" in there:
        return f"{fov}_points"
    for name in _POINTS:
        if name in there:
            return name
    if len(there) == 1 and not fov:
        return there[0]
    if fov and any(name.endswith("_points") for name in there):
        return ""  # a FOV without transcripts: its cells are dropped and counted
    if not need:
        return ""
    what = "has no points (transcripts)" if not there else "has several points: say which with points=..."
    msg = f'this SpatialData {what}; expression="cell" needs none. {describe_options(there)}'
    raise KeyError(msg) if not there else ValueError(msg)


def full_resolution(element: Any, name: str) -> tuple[Any, list[str]]:
    """Array c x y x x of the finest scale, and its channel names."""
    from xarray import DataTree

    if isinstance(element, DataTree):
        finest = element[next(iter(element.children))]
        element = finest[str(next(iter(finest.data_vars)))]
    if set(element.dims) != {"c", "y", "x"}:
        msg = f"image {name!r} has dimensions {element.dims}; c, y, x are needed."
        raise ValueError(msg)
    element = element.transpose("c", "y", "x")
    names = [str(c) for c in element.coords["c"].values] if "c" in element.coords else None
    return element.data, names or [str(i) for i in range(element.shape[0])]


def pick_channels(there: list[str], channels: Sequence[str | int] | None, name: str) -> list[int]:
    if channels is None:
        return list(range(len(there)))
    picked = []
    for channel in [channels] if isinstance(channels, (str, int)) else channels:
        if isinstance(channel, str) and channel in there:
            picked.append(there.index(channel))
        elif not isinstance(channel, str) and 0 <= int(channel) < len(there):
            picked.append(int(channel))
        else:
            msg = f"channel {channel!r} is not in image {name!r}. {describe_options(there, channel)}"
            raise KeyError(msg)
    if not picked:
        msg = "channels is empty: name at least one, or None for all."
        raise ValueError(msg)
    return picked


def _pixel_size(sdata: SpatialData, table: AnnData, frames: list[Frame]) -> float:
    """Micrometres per pixel: what the reader says, else (centres in um) from the transcripts' transformation, else 0."""
    said = sdata.attrs.get(SST, {}).get("pixel_size") if hasattr(sdata, "attrs") else None
    if said:
        return float(said)
    if "x_nucleus_um" in table.obs and frames[0].points_name:
        scale = float(np.sqrt(abs(np.linalg.det(frames[0].to_px[:2, :2]))))
        return 1.0 / scale if scale > 0 else 0.0
    return 0.0
