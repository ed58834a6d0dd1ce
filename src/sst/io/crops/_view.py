"""One image among an object's coordinates: where it lies, and whether it was cut out of a larger one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst._keys import SST
from sst._settings import logger

from ._evidence import first_rows, is_assigned, single_scale
from ._transform import affine, inverse, systems, to_pixels

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_SAMPLE = 200_000  # transcripts looked up in the labels


@dataclass(frozen=True)
class View:
    """An image, the transcripts and the table's rows that belong to it, and the maps between their coordinates.

    Attributes
    ----------
    sdata, table
        The object, and the rows of its table.
    image_name, points_name
        Names of the elements; ``""`` without transcripts.
    shape
        Rows and columns of the image.
    system
        The coordinate system.
    to_global
        3 x 3 matrix from pixels of the image to the coordinate system.
    to_px
        3 x 3 matrix from the transcripts' coordinates to pixels of the image, ``None`` without transcripts.
    cut
        Sides (left, upper, right, lower) at which the image ends in a pixel whose transcripts were left out in part.
    """

    sdata: SpatialData
    table: AnnData
    image_name: str
    points_name: str
    shape: tuple[int, int]
    system: str
    to_global: np.ndarray
    to_px: np.ndarray | None
    cut: tuple[bool, bool, bool, bool] = (False, False, False, False)

    @property
    def about(self) -> dict[str, Any]:
        """What the reader said of the object."""
        return dict(getattr(self.sdata, "attrs", {}).get(SST, {}))

    @property
    def to_image(self) -> np.ndarray:
        """From the coordinate system to pixels."""
        return inverse(self.to_global, self.image_name)

    @property
    def vendor_px(self) -> np.ndarray | None:
        """From pixels of the image as it was read to pixels as it is now, by the transcripts; ``None`` if that is not known.

        A query moves an image's origin, and another level of its pyramid has larger pixels; the transcripts' own
        coordinates stay.
        """
        unit = {"cosmx": 1.0, "xenium": float(self.about.get("pixel_size") or 0)}.get(
            str(self.about.get("vendor")), 0.0
        )
        return None if self.to_px is None or not unit else self.to_px @ np.diag([unit, unit, 1.0])


def view_image(
    sdata: SpatialData, table: AnnData, image_name: str, points_name: str, shape: tuple[int, int], system: str
) -> View:
    """The view of an image, put right by a pixel where a query has put it wrong (:func:`_mend_query`)."""
    to_global = affine(sdata.images[image_name], image_name, system)
    to_px = None
    if points_name:
        moved = affine(sdata.points[points_name], points_name, system)
        to_px = inverse(to_global, image_name) @ moved
        near = np.abs(to_px - np.round(to_px)) < 1e-9
        to_px[near] = np.round(to_px)[near]
    return _mend_query(View(sdata, table, image_name, points_name, shape, system, to_global, to_px))


def _mend_query(view: View) -> View:
    """Find by the transcripts in the labels where a queried image begins.

    ``spatialdata.bounding_box_query`` keeps the pixels whose centres lie in the box, and says that they begin at the box's
    low edge rounded *up*: for a box that begins at 100.3 it keeps pixel 100 and calls it 101. Labels share the fault,
    transcripts do not. The pixel at such an edge is covered in part by the transcripts that the query kept.
    """
    moved = view.vendor_px
    if moved is None or not np.allclose(moved[:2, :2], np.eye(2), atol=1e-6):
        return view
    whole = view.about.get("extent", {}).get(view.image_name)
    offset = -moved[:2, 2]
    right, lower = (whole is not None and bool(offset[a] + view.shape[1 - a] < whole[1 - a]) for a in (0, 1))
    if (np.abs(offset) < 1e-6).all():
        return replace(view, cut=(False, False, right, lower))
    shift = _best_shift(view, offset > 1e-6)
    if not any(shift):
        return replace(view, cut=(False, False, right, lower))
    logger.info("%r begins %s px before what its transformation says (by its labels)", view.image_name, shift)
    step = np.array([[1.0, 0, shift[0]], [0, 1.0, shift[1]], [0, 0, 1]])
    back = np.linalg.inv(step)
    return replace(
        view,
        to_px=step @ view.to_px,
        to_global=view.to_global @ back,
        cut=(bool(shift[0]), bool(shift[1]), right, lower),
    )


def _best_shift(view: View, possible: np.ndarray) -> tuple[int, int]:
    """How many pixels (0 or 1, in x and y) before its transformation says an image begins.

    A transcript more than half a pixel before the image shows that the box began in the first half of a pixel, so that the
    pixel was kept. Where none is, that shift is taken with which most transcripts lie in the label (or between the labels) that
    they are assigned to; of CosMx alone, whose reader has put transcripts and labels together to the pixel.
    """
    points = view.sdata.points[view.points_name]
    assigned = "cell_id" in points.columns
    frame = first_rows(points, ["x", "y", *(["cell_id"] if assigned else [])])
    if view.to_px is None or not len(frame):
        return 0, 0
    xy = to_pixels(frame[["x", "y"]].to_numpy(), view.to_px)
    first = xy.min(axis=0)
    sure = possible & (first < -0.5 - 1e-6)
    most = _times_queried(systems(view.sdata.images[view.image_name])[view.system])  # each query may add a pixel
    steps = np.array(list(np.ndindex(most + 1, most + 1)))
    shifts = [(int(x), int(y)) for x, y in steps[((steps > 0) <= possible).all(axis=1) & (steps >= sure).all(axis=1)]]
    found = _labels_of(view) if assigned and len(shifts) > 1 and view.about.get("vendor") == "cosmx" else None
    near = first < -0.5 + 3 * np.array(view.shape[::-1]) / len(xy)
    best, open_question = 0, most > 1 or bool((possible & ~sure & near).any())
    if found is not None:
        hits = _hits(shifts, xy, frame["cell_id"], *found)
        best = int(np.argmax(hits))
        open_question = hits.count(hits[best]) > 1
    if open_question:
        logger.warning(
            "where %r begins is not known to the pixel (too few transcripts, or queried more than once)",
            view.image_name,
        )
    return shifts[best]


def _times_queried(transformation: Any) -> int:
    """How many queries moved an image's origin, at least one: each puts a translation before what was there."""
    from spatialdata.transformations import Sequence, Translation

    times = 0
    while isinstance(transformation, Sequence):
        steps = transformation.transformations
        times += isinstance(steps[0], Translation)
        transformation = steps[1] if isinstance(steps[0], Translation) and len(steps) > 1 else steps[0]
    return max(1, times)


def _hits(
    shifts: list[tuple[int, int]], xy: np.ndarray, cell: pd.Series, labels: np.ndarray, ids: pd.Series
) -> list[int]:
    """With each shift, how many transcripts lie in the label that they are assigned to."""
    some = slice(None, None, max(1, len(xy) // _SAMPLE))
    pixel, cell = np.floor(xy[some]).astype(np.int64), cell.iloc[some]
    label = np.where(is_assigned(cell), ids.reindex(cell.astype(str)).to_numpy(dtype=np.float64), 0)
    inside = ((pixel >= 0) & (pixel < np.array(labels.shape[::-1]) - np.max(shifts))).all(axis=1)  # with any shift
    use = inside & np.isfinite(label)
    pixel, label = pixel[use], label[use]
    return [int((labels[pixel[:, 1] + y, pixel[:, 0] + x] == label).sum()) for x, y in shifts]


def _labels_of(view: View) -> tuple[np.ndarray, pd.Series] | None:
    """Labels on the image's own grid, and the label of each cell by its name among the transcripts."""
    attrs = view.table.uns.get("spatialdata_attrs", {})
    obs, key = view.table.obs, attrs.get("instance_key")
    regions = [str(r) for r in pd.unique(obs[attrs["region_key"]])] if attrs.get("region_key") in obs else []
    for name in regions:
        element = view.sdata.labels.get(name)
        if element is None or key not in obs or not pd.api.types.is_numeric_dtype(obs[key]):
            continue
        labels = single_scale(element)
        same = view.system in systems(element) and np.allclose(affine(element, name, view.system), view.to_global)
        if labels.shape != view.shape or not same:
            continue
        ids = pd.Series(obs[key].to_numpy(), index=pd.Index(obs[key]).astype(str))
        return np.asarray(labels.data), ids[~ids.index.duplicated()]
    return None
