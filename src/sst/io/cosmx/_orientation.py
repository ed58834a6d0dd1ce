"""Which way a slide's y axis runs: found from the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from sst._settings import logger, settings
from sst.io._raster import RasterFile, read_raster

from ._layout import QUIRKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._transcripts import Transcripts

_SAMPLE = 20_000  # assigned transcripts looked at in a FOV
_SHIFT_FOVS = 8  # FOVs that choose the sub-pixel shift
WARN_BELOW = 0.9
ERROR_BELOW = 0.5


@dataclass
class Orientation:
    """How local coordinates become rows and columns of the picture.

    Attributes
    ----------
    up
        Local y points up: the row is ``height - y``.
    shift
        Added to x and to the row, in pixels.
    evidence
        ``"labels"``, ``"intensity"`` or ``"given"``.
    agreement, opposite
        FOV -> share of the assigned transcripts that lie in the label they are assigned to, as chosen and the other
        way up (with evidence ``"intensity"``: mean intensity at the cells' centres over the picture's mean).
    """

    up: bool
    shift: tuple[float, float] = (0.0, 0.0)
    evidence: str = "given"
    agreement: dict[int, float] = field(default_factory=dict)
    opposite: dict[int, float] = field(default_factory=dict)

    def rows(self, y: np.ndarray, height: int) -> np.ndarray:
        """Local y to rows (continuous; pixel i covers [i, i+1))."""
        return (height - y if self.up else y) + self.shift[1]


def read_labels(file: RasterFile) -> np.ndarray:
    """A label picture ``(y, x)`` as integers, also when it was saved as floats.

    Raises
    ------
    ValueError
        More than one channel, or values that are no whole numbers >= 0.
    """
    image = read_raster(file)
    if image.shape[0] != 1:
        msg = f"{file}: labels have one channel, this has {image.shape[0]}."
        raise ValueError(msg)
    return as_labels(image[0], str(file))


def as_labels(image: np.ndarray, name: str = "labels") -> np.ndarray:
    """Whole numbers >= 0 as int32."""
    if image.dtype.kind == "f":
        image = np.where(np.isfinite(image), image, -1)
        if (image != np.floor(image)).any():
            msg = f"{name}: labels must be whole numbers."
            raise ValueError(msg)
    if image.size and image.min() < 0:
        msg = f"{name}: labels must be >= 0 and finite."
        raise ValueError(msg)
    return image.astype(np.int32)


def label_agreement(
    labels: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    cell: np.ndarray,
    *,
    up: bool,
    shift: tuple[float, float] = (0.0, 0.0),
) -> float:
    """Share of points that lie in the label they are assigned to; outside the picture counts as not."""
    height, width = labels.shape
    rows = np.floor((height - y if up else y) + shift[1]).astype(np.int64)
    cols = np.floor(x + shift[0]).astype(np.int64)
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    hit = np.zeros(len(x), dtype=bool)
    hit[inside] = labels[rows[inside], cols[inside]] == cell[inside]
    return float(hit.mean())


def find_orientation(
    transcripts: Transcripts, labels: Mapping[int, RasterFile], fovs: Sequence[int]
) -> Orientation | None:
    """The way up, and the sub-pixel shift, for which transcripts fall into the label they are assigned to.

    One way up and one shift for the slide, chosen by all its FOVs and reported for each. ``None`` where no assigned
    transcript lies in a FOV with labels.

    Raises
    ------
    ValueError
        Neither way reaches 50 %.
    """
    score: dict[bool, dict[int, float]] = {True: {}, False: {}}
    weight: dict[int, int] = {}
    kept: list[tuple[np.ndarray, ...]] = []
    for fov in tqdm(fovs, desc="y axis", disable=not settings.progress or len(fovs) < 20):
        if fov not in labels or fov not in transcripts.parts:
            continue
        frame = transcripts.frame(fov)
        frame = frame[frame["cell_id"] > 0]
        if not len(frame):
            continue
        frame = frame.iloc[:: max(1, len(frame) // _SAMPLE)]
        x, y, cell = (frame[c].to_numpy() for c in ("x", "y", "cell_id"))
        image = read_labels(labels[fov])
        weight[fov] = len(frame)
        for up in (True, False):
            score[up][fov] = label_agreement(image, x, y, cell, up=up)
        if len(kept) < _SHIFT_FOVS:
            kept.append((image, x, y, cell))
    if not weight:
        return None
    total = sum(weight.values())
    mean = {up: sum(score[up][f] * n for f, n in weight.items()) / total for up in (True, False)}
    up = mean[True] > mean[False]
    shift = _find_shift(kept, up=up)
    gain = {f: score[up][f] for f in weight}
    if shift != (0.0, 0.0):
        for fov in weight:
            frame = transcripts.frame(fov)
            frame = frame[frame["cell_id"] > 0]
            frame = frame.iloc[:: max(1, len(frame) // _SAMPLE)]
            x, y, cell = (frame[c].to_numpy() for c in ("x", "y", "cell_id"))
            gain[fov] = label_agreement(read_labels(labels[fov]), x, y, cell, up=up, shift=shift)
    best = sum(gain[f] * n for f, n in weight.items()) / total
    if best < ERROR_BELOW:
        msg = (
            f"the y axis cannot be found: {mean[True]:.1%} of the assigned transcripts lie in their own label with y up, "
            f"{mean[False]:.1%} with y down. Labels and transcripts do not belong together, or the picture was cropped. "
            "y_axis='up' or 'down' reads it all the same."
        )
        raise ValueError(msg)
    poor = {f: a for f, a in gain.items() if a < WARN_BELOW}
    if poor:
        worst = sorted(poor, key=lambda f: poor[f])[:5]
        listed = ", ".join(f"FOV {f}: {poor[f]:.1%}" for f in worst)
        logger.warning(
            "in %d of %d FOVs fewer than 90 %% of the transcripts lie in their own label (%s)",
            len(poor),
            len(gain),
            listed,
        )
    logger.info("y axis points %s (%.2f %% agree, %.2f %% the other way), shift %s px",
                "up" if up else "down", 100 * best, 100 * mean[not up], shift)  # fmt: skip
    return Orientation(up, shift, "labels", gain, {f: score[not up][f] for f in weight})


def _find_shift(kept: list[tuple[np.ndarray, ...]], *, up: bool) -> tuple[float, float]:
    """The shift with the best agreement; the first candidate unless another is better by more than chance."""
    n = sum(len(x) for _, x, _, _ in kept)

    def mean(shift: tuple[float, float]) -> float:
        return sum(len(x) * label_agreement(image, x, y, c, up=up, shift=shift) for image, x, y, c in kept) / n

    first = (QUIRKS.shifts[0], QUIRKS.shifts[0])
    start = mean(first)
    scores = {(sx, sy): mean((sx, sy)) for sx in QUIRKS.shifts for sy in QUIRKS.shifts if (sx, sy) != first}
    best = max(scores, key=lambda s: scores[s])
    chance = 3 * np.sqrt(max(start * (1 - start), 1 / n) / n)
    return best if scores[best] - start > chance else first


def orientation_from_intensity(
    images: Mapping[int, np.ndarray], x: Mapping[int, np.ndarray], y: Mapping[int, np.ndarray]
) -> Orientation:
    """Without labels: the way up for which the cells' centres are brighter (in the nuclear stain).

    Raises
    ------
    ValueError
        The paired difference is less than four times its standard error, or under 3 % of the mean: the data do not tell.
    """
    score: dict[bool, dict[int, float]] = {True: {}, False: {}}
    differences = []
    for fov, image in images.items():
        height, width = image.shape
        values = {}
        for up in (True, False):
            rows = np.floor(height - y[fov] if up else y[fov]).astype(int).clip(0, height - 1)
            cols = np.floor(x[fov]).astype(int).clip(0, width - 1)
            values[up] = image[rows, cols] / max(float(image.mean()), 1e-9)
            score[up][fov] = float(values[up].mean())
        differences.append(values[True] - values[False])
    difference = np.concatenate(differences)
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else np.inf
    up = bool(difference.mean() > 0)
    mean = {way: float(np.mean(list(score[way].values()))) for way in (True, False)}
    if abs(difference.mean()) < max(4 * error, 0.03):
        msg = (
            f"the y axis cannot be found: there are no labels, and cells' centres are as bright with y up ({mean[True]:.2f} of "
            f"the mean) as with y down ({mean[False]:.2f}). Say y_axis='up' or 'down'."
        )
        raise ValueError(msg)
    logger.warning("no labels: y axis %s from the brightness at the cells' centres (%.2f against %.2f of the mean)",
                   "up" if up else "down", mean[up], mean[not up])  # fmt: skip
    return Orientation(up, (0.0, 0.0), "intensity", score[up], score[not up])
