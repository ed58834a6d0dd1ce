"""The elements of a CosMx slide: pictures, labels, points, shapes, table, and their transformations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst._keys import SST, TABLE
from sst._strings import plain_strings
from sst.io._raster import lazy_raster

from ._mosaic import mosaic
from ._orientation import as_labels
from ._slide import fov_key, polygon_table
from ._tables import split_controls
from ._transcripts import to_image

if TYPE_CHECKING:
    import dask.array as da
    import dask.dataframe as dd
    from spatialdata import SpatialData

    from sst.io._read_log import ReadLog

    from ._slide import Slide
    from ._transcripts import Transcripts


def build(slide: Slide, log: ReadLog, *, stitch: bool, polygons: bool) -> SpatialData:
    """Make the SpatialData of a slide: elements a FOV, or one mosaic."""
    from spatialdata import SpatialData

    elements = _stitched(slide) if stitch else _by_fov(slide)
    table = _table(slide, stitch=stitch)
    shapes = {}
    if "polygons" in slide.files.tables:
        if polygons:
            shapes = _shapes(slide, log, stitch=stitch)
        else:
            log.add("polygons file", "left", 1, "polygons=False")
    attrs = {
        SST: {
            "vendor": "cosmx",
            "pixel_size": float(slide.pixel_size),
            "fovs": [fov_key(f) for f in slide.fovs],
            "stitched": stitch,
            "extent": {name: [int(n) for n in image.shape[1:]] for name, image in elements["images"].items()},
            "read": log.to_dict(),
        }
    }
    return SpatialData(**elements, shapes=shapes, tables={TABLE: table}, attrs=attrs)


def _scale(slide: Slide) -> float:
    return slide.pixel_size or 1.0


def _to_global(slide: Slide, corner: tuple[float, float]) -> Any:
    from spatialdata.transformations import Scale, Sequence, Translation

    s = _scale(slide)
    return Sequence([Scale([s, s], axes=("x", "y")), Translation([corner[0] * s, corner[1] * s], axes=("x", "y"))])


def _picture(slide: Slide, fov: int) -> da.Array:
    return lazy_raster(slide.files.images[fov], slide.infos[fov])


def _labels(slide: Slide, fov: int) -> da.Array:
    file = slide.files.labels[fov]
    lazy = lazy_raster(file)
    return lazy[0].map_blocks(as_labels, name=str(file), dtype=np.int32, token=f"labels-{lazy.name}")


def _flip(slide: Slide, fov: int) -> float | None:
    return float(slide.infos[fov].shape[1]) if slide.orientation.up else None


def _points(slide: Slide, fov: int) -> dd.DataFrame:
    return slide.transcripts.lazy(fov, _flip(slide, fov), slide.orientation.shift)


def _parse_points(frame: dd.DataFrame, transformations: dict[str, Any]) -> Any:
    from spatialdata.models import PointsModel

    return PointsModel.parse(
        frame,
        coordinates={"x": "x", "y": "y"},
        feature_key="gene",
        instance_key="cell_id",
        transformations=transformations,
        sort=True,
    )


def _by_fov(slide: Slide) -> dict[str, dict[str, Any]]:
    from spatialdata.models import Image2DModel, Labels2DModel
    from spatialdata.transformations import Identity

    images, labels, points = {}, {}, {}
    for fov in slide.fovs:
        key = fov_key(fov)
        to = {"global": _to_global(slide, slide.placement.corners[fov]), key: Identity()}
        images[f"{key}_image"] = Image2DModel.parse(
            _picture(slide, fov), dims=("c", "y", "x"), c_coords=slide.channels, transformations=dict(to)
        )
        if slide.files.labels:
            labels[f"{key}_labels"] = Labels2DModel.parse(
                _labels(slide, fov), dims=("y", "x"), transformations=dict(to)
            )
        points[f"{key}_points"] = _parse_points(_points(slide, fov), dict(to))
    return {"images": images, "labels": labels, "points": points}


def mosaic_corners(slide: Slide) -> tuple[dict[int, tuple[int, int]], tuple[float, float], tuple[int, int]]:
    """Row and column of each FOV in the mosaic, the mosaic's own corner (x, y), and its shape."""
    corners = slide.placement.corners
    low = np.min([corners[f] for f in slide.fovs], axis=0)
    at = {f: (round(corners[f][1] - low[1]), round(corners[f][0] - low[0])) for f in slide.fovs}
    height = max(at[f][0] + slide.infos[f].shape[1] for f in slide.fovs)
    width = max(at[f][1] + slide.infos[f].shape[2] for f in slide.fovs)
    return at, (float(low[0]), float(low[1])), (height, width)


def label_step(slide: Slide) -> int:
    """In a mosaic the label of cell ``k`` of the ``i``-th FOV is ``i * step + k``: a power of ten above every label."""
    return 10 ** len(str(int(slide.cells.obs["label"].max())))


def _stitched(slide: Slide) -> dict[str, dict[str, Any]]:
    import dask.array as da
    from spatialdata.models import Image2DModel, Labels2DModel

    at, corner, shape = mosaic_corners(slide)
    to = {"global": _to_global(slide, corner)}
    places = [at[f] for f in slide.fovs]
    picture = mosaic([_picture(slide, f) for f in slide.fovs], places, shape)
    images = {
        "image": Image2DModel.parse(picture, dims=("c", "y", "x"), c_coords=slide.channels, transformations=dict(to))
    }
    labels: dict[str, Any] = {}
    step = label_step(slide)
    if slide.files.labels:
        parts = [
            da.map_blocks(_renumber, _labels(slide, f), start=i * step, dtype=np.int32)[None]
            for i, f in enumerate(slide.fovs)
        ]
        plane = mosaic(parts, places, shape)[0]
        labels["labels"] = Labels2DModel.parse(plane, dims=("y", "x"), transformations=dict(to))
    points = {"points": _parse_points(_mosaic_points(slide, at, step), dict(to))}
    return {"images": images, "labels": labels, "points": points}


def _renumber(labels: np.ndarray, start: int) -> np.ndarray:
    return np.where(labels > 0, labels + np.int32(start), np.int32(0)).astype(np.int32)


def _mosaic_points(slide: Slide, at: dict[int, tuple[int, int]], step: int) -> dd.DataFrame:
    """Transcripts of all FOVs in the pixels of the mosaic; the index goes on from FOV to FOV."""
    import dask.dataframe as dd

    transcripts, shift = slide.transcripts, slide.orientation.shift
    counts = [transcripts.counts[f] for f in slide.fovs]
    ends = np.r_[0, np.cumsum(counts)]
    pieces = [(transcripts.parts[f], _flip(slide, f), at[f], i * step, int(ends[i])) for i, f in enumerate(slide.fovs)]
    meta = _moved(pieces[0], transcripts, shift).iloc[:0]
    divisions = (*ends[:-1].tolist(), int(ends[-1]) - 1)
    return dd.from_map(_moved, pieces, transcripts=transcripts.head(), shift=shift, meta=meta, divisions=divisions)


def _moved(
    piece: tuple[Any, float | None, tuple[int, int], int, int], transcripts: Transcripts, shift: tuple[float, float]
) -> pd.DataFrame:
    part, flip, at, start, before = piece
    frame = to_image(transcripts.load(part), flip, shift)
    cell = frame["cell_id"].where(frame["cell_id"] == 0, frame["cell_id"] + start).astype(np.int32)
    out = frame.assign(x=frame["x"] + at[1], y=frame["y"] + at[0], cell_id=cell)
    out.index = pd.RangeIndex(before, before + len(out))
    return out.assign(compartment=out["compartment"].astype(str)) if "compartment" in out else out


def _table(slide: Slide, *, stitch: bool) -> Any:
    from anndata import AnnData
    from spatialdata.models import TableModel

    obs, orientation = slide.cells.obs, slide.orientation
    fov = obs["fov"].to_numpy()
    heights = {f: slide.infos[f].shape[1] for f in slide.fovs}
    height = pd.Series(fov).map(heights).to_numpy(float)
    x = obs["x"].to_numpy(float) + orientation.shift[0]
    y = obs["y"].to_numpy(float)
    y = (height - y if orientation.up else y) + orientation.shift[1]
    keys = pd.Categorical([fov_key(f) for f in fov], categories=[fov_key(f) for f in slide.fovs])
    counts, genes, controls = split_controls(slide.cells)
    names = obs["cell_id"].astype(str) if "cell_id" in obs and obs["cell_id"].is_unique else None
    if names is None:
        names = pd.Series([f"{k}_{n}" for k, n in zip(keys, obs["label"], strict=True)])
    label = obs["label"].to_numpy()
    corner = np.array([slide.placement.corners[f] for f in slide.fovs])[keys.codes]
    spatial = (corner + np.column_stack([x, y])) * _scale(slide)
    out = pd.DataFrame({"fov": keys, "cell_id": names.to_numpy(), "x_px": x, "y_px": y})
    if stitch:
        at, _, _ = mosaic_corners(slide)
        shift = np.array([at[f] for f in slide.fovs])[keys.codes]
        out["x_fov_px"], out["y_fov_px"] = x, y
        out["x_px"], out["y_px"] = x + shift[:, 1], y + shift[:, 0]
        label = label + keys.codes.astype(np.int64) * label_step(slide)
        region = ["labels"] * len(out)
    else:
        region = [f"{k}_labels" for k in keys]
    out["label"] = label.astype(np.int64)
    out["region"] = pd.Categorical(region)
    internal = ["fov", "label", "x", "y", "x_global", "y_global", "x_mm", "y_mm", "cell_id"]
    rest = obs.drop(columns=[c for c in internal if c in obs])
    for name in rest:
        column = rest[name]
        plain = pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
        out[name] = column.to_numpy() if plain else pd.Categorical(column.where(column.isna(), column.astype(str)))
    out = pd.concat([out, controls], axis=1)
    out.index = pd.Index(names.to_numpy(), dtype=object)
    table = AnnData(X=counts, obs=plain_strings(out), var=pd.DataFrame(index=pd.Index(genes, dtype=object)))
    table.obsm["spatial"] = spatial
    if not slide.files.labels:  # nothing to annotate
        return TableModel.parse(table)
    used = list(dict.fromkeys(region))
    return TableModel.parse(table, region=used, region_key="region", instance_key="label")


def _shapes(slide: Slide, log: ReadLog, *, stitch: bool) -> dict[str, Any]:
    import geopandas as gpd
    import shapely
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    table = polygon_table(slide.files.tables["polygons"], log)
    at, corner, _ = mosaic_corners(slide)
    step, shapes, few = label_step(slide), {}, 0
    for i, fov in enumerate(slide.fovs):
        part = table[table["fov"] == fov]
        x = part["x"].to_numpy(float) + slide.orientation.shift[0]
        y = slide.orientation.rows(part["y"].to_numpy(float), slide.infos[fov].shape[1])
        label = part["label"].to_numpy()
        order = np.argsort(label, kind="stable")
        numbers, starts = np.unique(label[order], return_index=True)
        rings = np.split(np.column_stack([x, y])[order], starts[1:]) if len(numbers) else []
        good = [len(np.unique(r, axis=0)) > 2 for r in rings]
        few += len(rings) - sum(good)
        if not any(good):
            continue
        start, move = (i * step, np.array(at[fov][::-1])) if stitch else (0, np.zeros(2))
        geometry = [shapely.Polygon(r + move) for r, g in zip(rings, good, strict=True) if g]
        shapes[fov] = gpd.GeoDataFrame({"geometry": geometry}, index=numbers[np.array(good)] + start)
    log.skip("polygons", few, "fewer than three corners")
    if stitch and shapes:
        return {
            "polygons": ShapesModel.parse(
                pd.concat(shapes.values()), transformations={"global": _to_global(slide, corner)}
            )
        }
    return {
        f"{fov_key(f)}_polygons": ShapesModel.parse(
            frame, transformations={"global": _to_global(slide, slide.placement.corners[f]), fov_key(f): Identity()}
        )
        for f, frame in shapes.items()
    }
