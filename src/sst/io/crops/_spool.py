"""Sort a slide's transcripts into the tiles that cells are cut from, in a stream."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from dask.local import get_sync
from dask.optimization import cull
from tqdm.auto import tqdm

from sst._files import read_mark, sync_folder, write_json
from sst._settings import settings

from ._evidence import is_assigned
from ._names import check_names
from ._plan import Frame, gene_column
from ._transform import to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from ._options import WindowOptions

_IN_MEMORY = 48 << 20  # bytes of transcripts held before they go to disk
_AREA = 64  # px: the transcripts' area is their bounding box, widened to multiples of this
_MARK = "done.json"


@dataclass(frozen=True)
class Grid:
    """Tiles of one frame: cells belong to the tile of their window's low corner.

    Attributes
    ----------
    first
        Number of the frame's first tile.
    edge
        Edge of a tile in px.
    rows, columns
        Number of tiles.
    """

    first: int
    edge: int
    rows: int
    columns: int

    def tile_of(self, corners: np.ndarray) -> np.ndarray:
        """Number of the tile of each window corner (x, y)."""
        tx = np.clip(corners[:, 0] // self.edge, 0, self.columns - 1)
        ty = np.clip(corners[:, 1] // self.edge, 0, self.rows - 1)
        return self.first + ty * self.columns + tx

    def tiles_of(self, x: np.ndarray, y: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs (which points, their tile): a point can lie in windows of up to four tiles."""
        tx = np.clip(x // self.edge, 0, self.columns - 1)
        ty = np.clip(y // self.edge, 0, self.rows - 1)
        near_x = (tx > 0) & (x - tx * self.edge < size)
        near_y = (ty > 0) & (y - ty * self.edge < size)
        number = self.first + ty * self.columns + tx
        yield np.arange(len(x)), number
        for mask, step in ((near_x, 1), (near_y, self.columns), (near_x & near_y, self.columns + 1)):
            which = np.flatnonzero(mask)
            if len(which):
                yield which, number[which] - step


def make_grids(frames: list[Frame], size: int, edge: int = 4096) -> list[Grid]:
    """Tiles for every frame: the whole image if it is at most 1.5 ``edge``, else about ``edge``, whole chunks of the image."""
    grids, first = [], 0
    for frame in frames:
        longest = max(frame.height, frame.width)
        tile = longest if longest <= 1.5 * edge else edge
        chunk = max((int(c[0]) for c in getattr(frame.image, "chunks", ((0,),) * 3)[1:]), default=0)
        if longest > 1.5 * edge and 0 < chunk <= 2 * edge:
            tile = chunk * max(1, edge // chunk)
        tile = max(tile, size, 1)
        grid = Grid(first, tile, -(-frame.height // tile), -(-frame.width // tile))
        grids.append(grid)
        first += grid.rows * grid.columns
    return grids


@dataclass
class Spool:
    """Transcripts by tile: int32 rows (x, y, gene), in memory while they are few, else in a file per tile."""

    folder: Path
    parts: dict[int, list[np.ndarray]] = field(default_factory=dict)
    areas: list[tuple[int, int, int, int] | None] = field(default_factory=list)
    report: dict[str, int] = field(default_factory=dict)
    on_disk: bool = False
    _held: int = 0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def add(self, tile: np.ndarray, rows: np.ndarray) -> None:
        """Add transcripts (n x 3) to their tiles (n)."""
        if not len(tile):
            return
        order = np.argsort(tile, kind="stable")
        tile, rows = tile[order], rows[order]
        cuts = np.flatnonzero(np.r_[True, tile[1:] != tile[:-1]])
        with self._lock:
            for a, b in zip(cuts, np.r_[cuts[1:], len(tile)], strict=True):
                self.parts.setdefault(int(tile[a]), []).append(rows[a:b])
                self._held += rows[a:b].nbytes
            if self._held > _IN_MEMORY:
                self.flush()

    def flush(self) -> None:
        """Move what is held to disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for tile, arrays in self.parts.items():
            with self._file(tile).open("ab") as handle:
                for array in arrays:
                    np.ascontiguousarray(array, dtype="<i4").tofile(handle)
        self.parts.clear()
        self._held = 0
        self.on_disk = True

    def source(self, tile: int) -> Path | list[np.ndarray]:
        """Where the transcripts of a tile are: a file, or arrays."""
        return self._file(tile) if self.on_disk else self.parts.get(tile, [])

    def close(self, *, to_disk: bool) -> None:
        """Nothing more comes. If it went to disk, leave a mark there so that it need not be done again."""
        if to_disk or self.on_disk:
            self.flush()
            sync_folder(self.folder)
            write_json(self.folder / _MARK, {"areas": self.areas, "report": self.report})

    @classmethod
    def reopen(cls, folder: Path) -> Spool | None:
        """The spool that an interrupted run left behind; one that is not whole is removed."""
        said = read_mark(folder / _MARK)
        if said is None:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        areas = [None if a is None else tuple(a) for a in said["areas"]]
        return cls(folder, areas=areas, report=said["report"], on_disk=True)

    def _file(self, tile: int) -> Path:
        return self.folder / f"{tile:06d}.i4"


def load_points(source: Path | list[np.ndarray] | None) -> np.ndarray:
    """Transcripts of a tile, n x 3 (x, y, gene)."""
    if isinstance(source, Path):
        return np.fromfile(source, dtype="<i4").reshape(-1, 3) if source.exists() else np.empty((0, 3), np.int32)
    return np.concatenate(source) if source else np.empty((0, 3), np.int32)


def spool_points(
    frames: list[Frame],
    grids: list[Grid],
    table: AnnData,
    spool: Spool,
    options: WindowOptions,
    *,
    n_workers: int,
) -> None:
    """Read every transcript once: filter, move to pixels, sort into tiles.

    Fills ``spool.areas`` (per frame x0, y0, x1, y1: bounding box of *all* transcripts, before any filter, widened to
    multiples of 64 px; ``None`` without transcripts) and ``spool.report`` (how many were read, used, and left out, and why).
    """
    tally = _Tally(len(frames), table.n_vars)
    genes = {str(g): i for i, g in enumerate(table.var_names)}
    pieces = [
        (f, part)
        for f, frame in enumerate(frames)
        if frame.points is not None
        for part in _partitions(frame, need_cells=options.assigned_only)
    ]

    def one(piece: tuple[int, Callable[[], pd.DataFrame]]) -> None:
        f, read = piece
        rows = tally.add(f, frames[f], read(), genes, options)
        for which, tile in grids[f].tiles_of(rows[:, 0], rows[:, 1], options.size):
            spool.add(tile, rows[which])

    with ThreadPoolExecutor(max(1, n_workers)) as pool:
        jobs = pool.map(one, pieces)
        for _ in tqdm(jobs, total=len(pieces), desc="transcripts", disable=not settings.progress, leave=False):
            pass
    spool.areas = [_area(b, frame.view.cut) for b, frame in zip(tally.boxes, frames, strict=True)]
    spool.report = {**tally.report, "genes_without_transcripts": check_names(table, tally.by_gene, tally.others)}


class _Tally:
    """Counts what became of transcripts while they are read, in several threads."""

    def __init__(self, n_frames: int, n_genes: int) -> None:
        reasons = ("low_quality", "unassigned", "other_targets", "used")
        self.report = dict.fromkeys(("transcripts", *(f"transcripts_{r}" for r in reasons)), 0)
        self.boxes: list[list[np.ndarray]] = [[] for _ in range(n_frames)]
        self.by_gene = np.zeros(n_genes, np.int64)
        self.others: set[str] = set()
        self._lock = threading.Lock()

    def add(
        self, f: int, frame: Frame, part: pd.DataFrame, genes: dict[str, int], options: WindowOptions
    ) -> np.ndarray:
        """Rows (x, y in whole pixels, gene) of the transcripts that count and lie near the image."""
        size = options.size
        xy = part[["x", "y"]].to_numpy(dtype=np.float64)
        if not np.array_equal(frame.to_px, np.eye(3)):
            xy = to_pixels(xy, frame.to_px)
        there = np.isfinite(xy).all(axis=1)
        gene, others = _codes(part[gene_column(frame.points, frame.view.points_name)], genes)
        good = part["qv"].to_numpy() >= options.min_qv if "qv" in part else np.ones(len(part), bool)
        taken = is_assigned(part["cell_id"]) if options.assigned_only else np.ones(len(part), bool)
        keep = there & good & taken & (gene >= 0)
        pixel = np.floor(xy[there])
        near = keep[there] & ((pixel >= -size) & (pixel < (frame.width + size, frame.height + size))).all(axis=1)
        rows = np.empty((int(near.sum()), 3), np.int32)
        rows[:, :2] = pixel[near]
        rows[:, 2] = gene[there][near]
        named = np.bincount(gene[gene >= 0], minlength=len(self.by_gene))
        counts = {
            "": len(part),
            "_used": len(rows),
            "_other_targets": int((gene < 0).sum()),
            "_low_quality": int(((gene >= 0) & ~good).sum()),
            "_unassigned": int(((gene >= 0) & good & ~taken).sum()),
        }
        with self._lock:
            if there.any():
                self.boxes[f].append(np.r_[xy[there].min(axis=0), xy[there].max(axis=0)])
            self.by_gene += named
            self.others.update(others)
            for reason, number in counts.items():
                self.report[f"transcripts{reason}"] += number
        return rows


def _partitions(frame: Frame, *, need_cells: bool) -> list[Callable[[], pd.DataFrame]]:
    """A reader for each partition of the points.

    Dask's dataframe expressions must not be built or optimised in several threads: on Python 3.11 their cached properties
    hold locks, and two threads that take them in opposite order wait for ever. So graphs are made here, in one thread, and
    the readers only run them.
    """
    points = frame.points
    gene = gene_column(points, frame.view.points_name)
    if need_cells and "cell_id" not in points.columns:
        msg = f"assigned_only=True: points {frame.view.points_name!r} have no column 'cell_id'; they have {list(points.columns)}."
        raise KeyError(msg)
    part = points[["x", "y", gene, *[c for c in ("qv", "cell_id") if c in points.columns]]]
    if not hasattr(part, "partitions"):
        return [lambda: part]
    part = part.optimize()
    graph, keys = dict(part.__dask_graph__()), part.__dask_keys__()
    return [partial(get_sync, cull(graph, key)[0], key) for key in keys]


def _codes(values: pd.Series, genes: dict[str, int]) -> tuple[np.ndarray, list[str]]:
    """Gene index of each transcript, -1 for targets that are not genes of the table; and those targets' names."""
    categorical = values if isinstance(values.dtype, pd.CategoricalDtype) else values.astype("category")
    names = [c.decode() if isinstance(c, bytes) else str(c) for c in categorical.cat.categories]
    lookup = np.array([*[genes.get(name, -1) for name in names], -1], dtype=np.int32)
    return lookup[categorical.cat.codes.to_numpy()], [name for name in names if name not in genes]


def _area(boxes: list[np.ndarray], cut: tuple[bool, ...]) -> tuple[int, int, int, int] | None:
    """The area that transcripts cover: widened, but not at sides where a query cut through a pixel (``View.cut``)."""
    if not boxes:
        return None
    stack = np.stack(boxes)
    low, high = stack[:, :2].min(axis=0), stack[:, 2:].max(axis=0)
    wide = np.r_[np.floor(low / _AREA) * _AREA, (np.floor(high / _AREA) + 1) * _AREA]
    tight = np.r_[np.ceil(low), np.floor(high)]
    x0, y0, x1, y1 = (int(v) for v in np.where(np.array(cut), tight, wide))
    return x0, y0, x1, y1
