"""Find the images, the transcripts and the cells' centres of any SpatialData, all in pixels of the images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._keys import CROPS, FOV, SST
from sst._settings import logger
from sst._validate import describe_options

from ._brightfield import looks_brightfield
from ._centres import annotated, find_centres
from ._evidence import single_scale
from ._transform import affine, systems
from ._view import View, view_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_IMAGES = ("image", "morphology_focus", "morphology_mip")
_WHOLE = "_full_image"  # Visium HD has smaller copies beside it
_POINTS = ("points", "transcripts")
_BINS = r"square_(\d+)um"
_IN_UM = (0.02, 0.95)  # um per px: transcripts whose unit is so many pixels are taken to be in micrometres
_GENE_COLUMNS = ("gene", "feature_name", "target", "genes", "feature")


@dataclass
class Frame:
    """One image, its transcripts and its cells.

    Attributes
    ----------
    key
        FOV, or ``""`` for an image of the whole slide.
    view
        Where it lies.
    image
        c x y x x, lazy or not, all channels.
    channels
        Indices of the channels wanted.
    rows
        Rows of the table that lie in this image.
    centres
        Their centres in px (x, y); NaN where there is none.
    """

    key: str
    view: View
    image: Any
    channels: list[int]
    rows: np.ndarray
    centres: np.ndarray

    @property
    def points(self) -> Any:
        """Lazy dataframe of the transcripts, or ``None``."""
        return self.view.sdata.points[self.view.points_name] if self.view.points_name else None

    @property
    def to_px(self) -> np.ndarray:
        """3 x 3 matrix from the transcripts' coordinates (x, y) to pixels of the image."""
        return np.eye(3) if self.view.to_px is None else self.view.to_px

    @property
    def to_global(self) -> np.ndarray:
        """3 x 3 matrix from pixels of the image to the coordinate system."""
        return self.view.to_global

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
    system: str
    brightfield: bool


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
    coordinate_system: str | None,
    pixel_size: float | None = None,
    brightfield: bool | None = None,
) -> Plan:
    """Match elements, table and transformations.

    With ``obs["fov"]`` and an image per FOV (``"{fov}_image"``, or a pattern with ``{fov}`` in ``image``) every FOV is a
    frame; else there is one.
    """
    image_names = match_images(sdata, table, image)
    by_fov = "" not in image_names
    system = _system(sdata, next(iter(image_names.values())), coordinate_system)
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
        points_name = match_points(sdata, points, key, need=need_points)
        rows = np.flatnonzero(fov_of == key)
        here_table = table[rows] if by_fov else table
        view = view_image(sdata, here_table, image_name, points_name, array.shape[1:], system)
        centres, source = find_centres(view, center=center, labels=labels.format(fov=key) if labels else None)
        frames.append(Frame(key, view, array, picked, rows, centres))
    if sum(len(f.rows) for f in frames) == 0:
        msg = f"no cell of the table lies in the images {list(image_names.values())[:5]}."
        raise ValueError(msg)
    dtypes = {np.dtype(f.image.dtype) for f in frames}
    if len(dtypes) > 1:
        msg = f"the images have different types: {sorted(map(str, dtypes))}."
        raise ValueError(msg)
    logger.info("centres from %s; %d image(s), channels %s", source, len(frames), names)
    first = frames[0]
    light = looks_brightfield(first.image, first.channels, names or [], first.centres, wanted=brightfield)
    size = _pixel_size(sdata, table, first, pixel_size)
    return Plan(frames, names or [], dtypes.pop(), size, source, by_fov, system, light)


def _system(sdata: SpatialData, image: str, wanted: str | None) -> str:
    """The coordinate system asked for; else ``"global"``, the one that has the image as it is, or the only one of the image."""
    from spatialdata.transformations import Identity

    if wanted is not None:
        return wanted
    known = systems(sdata.images[image])
    if "global" in known:
        return "global"
    plain = [name for name, moved in known.items() if isinstance(moved, Identity)]
    for names in (plain, list(known)):
        if len(names) == 1:
            return names[0]
    msg = f"image {image!r} is in several coordinate systems: say which with coordinate_system=... {describe_options(known)}"
    raise ValueError(msg)


def gene_column(points: Any, name: str) -> str:
    """The column of the transcripts that names the gene."""
    key = points.attrs.get("spatialdata_attrs", {}).get("feature_key") if hasattr(points, "attrs") else None
    for column in (key, *_GENE_COLUMNS):
        if column is not None and column in points.columns:
            return str(column)
    msg = f"points {name!r} have no column of gene names. {describe_options(points.columns)}"
    raise KeyError(msg)


def match_images(sdata: SpatialData, table: AnnData, image: str | None) -> dict[str, str]:
    """Frame key -> image name; of paired cells, without ``image``, the one that they were cut from."""
    there = list(sdata.images.keys())
    cut_from = table.uns.get(CROPS, {}).get("params", {}).get("image")
    if image is None and cut_from in there:
        image = str(cut_from)
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
    whole = [name for name in there if name.endswith(_WHOLE)]
    for name in (*_IMAGES, *(whole if len(whole) == 1 else [])):
        if name in there:
            return {"": name}
    if len(there) > 1:
        msg = f"several images: say which with image=... {describe_options(there)}"
        raise ValueError(msg)
    return {"": there[0]}


def match_points(sdata: SpatialData, points: str | None, fov: str, *, need: bool) -> str:
    """Name of the transcripts of an image; ``""`` if there are none and none are needed."""
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
    element = single_scale(element)
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


def _pixel_size(sdata: SpatialData, table: AnnData, frame: Frame, given: float | None) -> float:
    """Micrometres per pixel of the image: as given, by the reader, by the object, or by the transcripts' scale; 0 if unknown."""
    if given is not None:
        return float(given)
    view = frame.view
    scale = 0.0 if view.to_px is None else float(np.sqrt(abs(np.linalg.det(view.to_px[:2, :2]))))
    attrs = getattr(sdata, "attrs", {})
    for said in (attrs.get(SST, {}).get("pixel_size"), attrs.get("pixel_size")):
        if isinstance(said, (int, float)) and np.isfinite(said) and said > 0:
            moved = view.vendor_px  # another level of the pyramid has larger pixels
            return float(said) if moved is None else float(said) / float(np.sqrt(abs(np.linalg.det(moved[:2, :2]))))
    if scale > 0 and ("x_nucleus_um" in table.obs or _IN_UM[0] < 1 / scale < _IN_UM[1]):
        return 1.0 / scale
    return _by_bins(view)


def _by_bins(view: View) -> float:
    """Micrometres per pixel by the bins that the table annotates, whose name says how large they are; else 0."""
    region, _ = annotated(view.table)
    named = re.search(_BINS, region)
    if named is None or region not in view.sdata.shapes or view.system not in systems(view.sdata.shapes[region]):
        return 0.0
    shapes = view.sdata.shapes[region]
    side = 2 * shapes["radius"].iloc[0] if "radius" in shapes else float(np.sqrt(shapes.geometry.iloc[0].area))
    moved = view.to_image @ affine(shapes, region, view.system)
    return float(named.group(1)) / (float(side) * float(np.sqrt(abs(np.linalg.det(moved[:2, :2])))))
