"""Where the cells' centres are: what the table says, taken by transformations and checked against elements that have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst._keys import SPATIAL
from sst._settings import logger
from sst._validate import check_choice, describe_options

from ._evidence import label_centroids, pick, shape_centroids, single_scale, transcript_means, vertex_means
from ._transform import affine, inverse, systems, to_pixels

if TYPE_CHECKING:
    from anndata import AnnData

    from ._view import View

_SAME = 0.01  # px: two sources that differ by less say the same
_NEAR = 8.0  # px, or half the distance between neighbours: a source that lies nearer to the evidence agrees with it
_ENOUGH = 20  # cells that must disagree before an error is raised


@dataclass(frozen=True)
class Centres:
    """Cells' centres in pixels of the image (n x 2, NaN where there is none), and where they come from."""

    xy: np.ndarray
    source: str
    cached: bool = False  # pixels that someone wrote down: they know of no transformation
    given: bool = True  # by the table, not by an element


def find_centres(view: View, *, center: str, labels: str | None) -> tuple[np.ndarray, str]:
    """Centres of the table's cells in pixels of an image.

    For ``center="nucleus"``: ``obs["x_nucleus_um"]`` (in the transcripts' coordinates); the mean of the vertices of
    ``shapes["nucleus_boundaries"]``; ``obs["x_nucleus_px"]``; else the cell's centre. For the cell: the labels asked for;
    the table's coordinates by the transformations of the elements that they were read with; ``obs["x_px"]``; the element that the
    table annotates. Sources that contradict each other, and pixels that stand in the table alone, are compared with shapes,
    labels or the transcripts assigned to the cells; the one that agrees is taken. Cells without a nucleus get the cell's centre.

    Parameters
    ----------
    view
        The image, and the rows of the table in it.
    center
        ``"nucleus"`` or ``"cell"``.
    labels
        Labels element whose centroids are wanted.

    Returns
    -------
    n x 2 (x, y), NaN where a cell has none, and a word on where they come from.
    """
    check_choice("center", center, ("nucleus", "cell"))
    nuclei = _nucleus_sources(view) if center == "nucleus" else []
    if not nuclei:
        cells = _cells(view, labels)
        return cells.xy, cells.source
    by_shape = next((s for s in nuclei if not s.given), None)
    if by_shape is not None:
        best = _judge([s for s in nuclei if s.given] or [by_shape], by_shape)
    else:
        cells = _cells(view, labels)
        best = _judge(nuclei, cells)
        if best is cells:
            return cells.xy, cells.source
    lacking = np.isnan(best.xy).any(axis=1)
    if not lacking.any():
        return best.xy, best.source
    logger.info("%d cells have no nucleus: the cell's centre is used", int(lacking.sum()))
    return np.where(lacking[:, None], _cells(view, labels).xy, best.xy), best.source


def _nucleus_sources(view: View) -> list[Centres]:
    obs, out = view.table.obs, []
    if {"x_nucleus_um", "y_nucleus_um"} <= set(obs.columns):
        um = _columns(obs, "x_nucleus_um", "y_nucleus_um")
        if view.to_px is not None:
            out.append(Centres(to_pixels(um, view.to_px), 'obs["x_nucleus_um"]'))
        if view.about.get("vendor") == "xenium" and view.about.get("pixel_size"):
            out += _in_global(view, um / float(view.about["pixel_size"]))
    if {"x_nucleus_px", "y_nucleus_px"} <= set(obs.columns):
        out.append(Centres(_columns(obs, "x_nucleus_px", "y_nucleus_px"), 'obs["x_nucleus_px"]', cached=True))
    if len(out) > 1 and _agree(out[0], out[1]):
        return out[:1]
    name = "nucleus_boundaries"
    if name in view.sdata.shapes and view.system in systems(view.sdata.shapes[name]):
        shapes = view.sdata.shapes[name]
        _, keys = annotated(view.table)
        own = pd.Index(obs.get("cell_id", keys))
        for ids in (own, keys) if "cell_id" in shapes.columns else (keys, own):
            xy = pick(vertex_means(shapes), ids)
            if xy is not None:
                moved = to_pixels(xy, view.to_image @ affine(shapes, name, view.system))
                return [*out, Centres(moved, f'shapes["{name}"]', given=False)]
    return out


def _cells(view: View, labels: str | None) -> Centres:
    if labels is not None:
        if labels not in view.sdata.labels:
            msg = f"labels={labels!r} is not among the labels of this SpatialData. {describe_options(view.sdata.labels, labels)}"
            raise KeyError(msg)
        return _label_centres(view, labels)
    sources = _cell_sources(view)
    if not sources:
        found = _element(view)
        if found is None:
            msg = (
                "the cells' centres were not found: neither obs['x_px'], nor an element that the table annotates, nor "
                f"obsm['spatial']. obs has {list(view.table.obs.columns)[:20]}, shapes {list(view.sdata.shapes)}, "
                f"labels {list(view.sdata.labels)}."
            )
            raise KeyError(msg)
        return found
    first = sources[0]
    if len(sources) > 1 and all(_agree(first, s) for s in sources[1:]):
        return first
    if not first.cached and len(sources) == 1 and view.about.get("vendor") not in ("cosmx", "xenium"):
        return _element(view) or first
    evidence = _element(view) or _assigned(view)
    return _unproven(sources) if evidence is None else _judge(sources, evidence)


def _cell_sources(view: View) -> list[Centres]:
    """What the table says, in the order of trust; pixels in the table last."""
    table, about, out = view.table, view.about, []
    spatial = np.asarray(table.obsm[SPATIAL], dtype=np.float64)[:, :2] if SPATIAL in table.obsm else None
    px = _columns(table.obs, "x_px", "y_px") if {"x_px", "y_px"} <= set(table.obs.columns) else None
    if px is not None and view.vendor_px is not None:
        out.append(Centres(to_pixels(px, view.vendor_px), 'obs["x_px"] (by the transcripts)'))
    attrs = getattr(view.sdata, "attrs", {})
    micrometres = about.get("vendor") == "xenium" or "x_nucleus_um" in table.obs
    micrometres |= attrs.get("spatialdata_io_reader") == "merscope" and {"center_x", "center_y"} <= set(
        table.obs.columns
    )
    if spatial is not None and micrometres and view.to_px is not None:
        out.append(Centres(to_pixels(spatial, view.to_px), 'obsm["spatial"] (transcripts)'))
    if about.get("vendor") in ("cosmx", "xenium"):
        old = spatial if about["vendor"] == "cosmx" else px  # what the reader wrote in the system "global"
        out += [] if old is None else _in_global(view, old)
    elif px is not None:
        out.append(Centres(px, 'obs["x_px"]', cached=True))
    if spatial is not None and not micrometres and about.get("vendor") not in ("cosmx", "xenium"):
        out.append(Centres(to_pixels(spatial, view.to_image), f'obsm["spatial"] ({view.system})'))
    return out


def _in_global(view: View, xy: np.ndarray) -> list[Centres]:
    """Positions in the system ``global``, as the readers write them; none where the image has lost it."""
    image = view.sdata.images[view.image_name]
    if view.system == "global":
        matrix = view.to_image
    elif "global" in systems(image):
        matrix = inverse(affine(image, view.image_name, "global"), view.image_name)
    else:
        return []
    return [Centres(to_pixels(xy, matrix), 'the table, in "global"')]


def _element(view: View) -> Centres | None:
    """Centres by the shapes or labels that the table annotates; ``None`` if there are none of its cells."""
    region, keys = annotated(view.table)
    if region in view.sdata.shapes and view.system in systems(view.sdata.shapes[region]):
        shapes = view.sdata.shapes[region]
        xy = pick(shape_centroids(shapes), keys)
        if xy is not None:
            matrix = view.to_image @ affine(shapes, region, view.system)
            return Centres(to_pixels(xy, matrix), f"shapes[{region!r}]", given=False)
    if region in view.sdata.labels and view.system in systems(view.sdata.labels[region]):
        found = _label_centres(view, region)
        return None if np.isnan(found.xy).all() else found
    return None


def _assigned(view: View) -> Centres | None:
    """Centres of the transcripts that are assigned to the cells; ``None`` if they name no cell of the table."""
    if not view.points_name or view.to_px is None:
        return None
    points = view.sdata.points[view.points_name]
    if "cell_id" not in points.columns:
        return None
    means = transcript_means(points)
    _, keys = annotated(view.table)
    for ids in (pd.Index(view.table.obs.get("cell_id", keys)), keys):
        xy = means.reindex(ids.astype(str)).to_numpy(dtype=np.float64)
        if np.isfinite(xy).all(axis=1).sum() >= max(2, len(ids) // 10):
            return Centres(to_pixels(xy, view.to_px), "the transcripts assigned to the cells", given=False)
    return None


def _agree(one: Centres, other: Centres) -> bool:
    """Whether two sources say the same of all cells that both know."""
    away = np.abs(one.xy - other.xy)
    return bool(np.isfinite(away).any()) and float(np.nanmax(away)) < _SAME


def _judge(sources: list[Centres], evidence: Centres) -> Centres:
    """The source that lies nearest to the evidence; the evidence itself where none agrees with it."""
    away = [_distance(s, evidence) for s in sources]
    best = sources[int(np.argmin(away))]
    if min(away) <= _tolerance(evidence.xy):
        if best is not sources[0]:
            logger.warning(
                "%s is not where the cells are (by %s): %s is used", sources[0].source, evidence.source, best.source
            )
        return best
    if evidence is best:
        return best
    names = " and ".join(s.source for s in sources)
    what = f"{names} lies {min(away):.0f} px (median) from {evidence.source}"
    if "transcripts" not in evidence.source:
        logger.warning(
            "%s, which is used instead: the table's positions are of another image, scale or coordinate system", what
        )
        return evidence
    if np.isfinite(evidence.xy).all(axis=1).sum() >= _ENOUGH:
        msg = (
            f"{what}: the table's positions are of another image, scale or coordinate system. Name labels= of the cells, or drop "
            "the columns."
        )
        raise ValueError(msg)
    logger.warning("%s; it is used all the same", what)
    return best


def _distance(source: Centres, evidence: Centres) -> float:
    away = np.linalg.norm(source.xy - evidence.xy, axis=1)
    return float(np.nanmedian(away)) if np.isfinite(away).any() else np.inf


def _tolerance(xy: np.ndarray) -> float:
    """Half the distance between neighbours (median), and at least 8 px."""
    from scipy.spatial import cKDTree

    known = xy[np.isfinite(xy).all(axis=1)]
    if len(known) < 2:
        return _NEAR
    return max(_NEAR, float(np.median(cKDTree(known).query(known, k=2)[0][:, 1])) / 2)


def _unproven(sources: list[Centres]) -> Centres:
    """Without evidence: pixels in the table, unless coordinates differ from them by one step that an image's cut would make."""
    first = sources[0]
    for other in sources[1:]:
        step = other.xy - first.xy
        if first.cached and not other.cached and float(np.nanmax(np.nanstd(step, axis=0))) < _SAME:
            logger.warning("%s begins at another pixel than %s, which is used", first.source, other.source)
            return other
    return first


def annotated(table: AnnData) -> tuple[str, pd.Index]:
    """The element that the table annotates (``""`` if none or several), and the cells' ids in it."""
    attrs = table.uns.get("spatialdata_attrs", {})
    region, key = attrs.get("region"), attrs.get("instance_key")
    if isinstance(region, (list, tuple, np.ndarray)):
        here = pd.unique(table.obs[attrs["region_key"]]) if attrs.get("region_key") in table.obs else list(region)
        region = here[0] if len(here) == 1 else ""
    return str(region or ""), pd.Index(table.obs.get(key, table.obs_names))


def _columns(obs: pd.DataFrame, x: str, y: str) -> np.ndarray:
    try:
        return obs[[x, y]].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"obs[{x!r}] and obs[{y!r}] must be numbers ({error})."
        raise ValueError(msg) from error


def _label_centres(view: View, name: str) -> Centres:
    element = view.sdata.labels[name]
    matrix = view.to_image @ affine(element, name, view.system)
    means = label_centroids(single_scale(element).data)
    _, keys = annotated(view.table)
    if len(keys) and not pd.api.types.is_numeric_dtype(keys):
        keys = pd.Index(pd.to_numeric(keys, errors="coerce"))
    return Centres(to_pixels(means.reindex(keys).to_numpy(), matrix), f"labels[{name!r}]", given=False)
