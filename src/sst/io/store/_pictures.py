"""Images that are drawn, not cut: into memory or, block by block, into a folder that the same call can take up again."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sst._files import locked, read_mark, replace_folder, write_json
from sst._settings import logger

from ._layout import RawWriter, chunk_file, mapped
from ._reader import CropReader, MappedReader, _positive, crop_reader, lazy, lazy_crops

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    Blocks = list[tuple[int, int]]
    Draw = Callable[[Blocks], Generator[dict[str, np.ndarray]]]

_DRAWN = "drawn.json"  # in a folder of pictures: what they were drawn from


class Slot(NamedTuple):
    """What is drawn of a cell: its shape, c x h x w for pictures, and its type."""

    shape: tuple[int, ...]
    dtype: np.dtype = np.dtype(np.uint8)

    @property
    def bytes(self) -> int:
        """Of one cell."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def draw_in_memory(slots: Mapping[str, Slot], blocks: Blocks, draw: Draw) -> dict[str, np.ndarray]:
    """Draw every block, as :func:`draw_to_store` does; arrays by name."""
    out = {name: np.empty((blocks[-1][1] if blocks else 0, *slot.shape), slot.dtype) for name, slot in slots.items()}
    for (a, b), images in zip(blocks, draw(blocks), strict=True):
        for name, rows in images.items():
            out[name][a:b] = rows
    return out


def draw_to_store(
    slots: Mapping[str, Slot], blocks: Blocks, draw: Draw, *, store: Path, drawn_from: str
) -> dict[str, Any]:
    """Draw every block into ``store/obsm/<name>``; what an earlier call of the same kind left is kept and gone on from.

    Parameters
    ----------
    slots
        What is drawn, by name.
    blocks
        Runs of rows, in order.
    draw
        Yields what is drawn of each block it is given, by name, in order.
    store
        Folder; made if it is not there.
    drawn_from
        Hash of everything that the pictures depend on.

    Returns
    -------
    By name: lazy arrays of pictures, anything else in memory.

    Raises
    ------
    FileExistsError
        The store holds other pictures of one of these names.
    BlockingIOError
        Another process is drawing there.
    """
    folder = store / "obsm"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(store, "drawn into"):
        done = [read_mark(folder / name / _DRAWN) for name in slots]
        for name, mark in zip(slots, done, strict=True):
            if (folder / name).exists() and (mark or {}).get("drawn_from") != drawn_from:
                msg = f"{folder / name} holds other pictures: name another store, or remove it."
                raise FileExistsError(msg)
        if not all(done):
            _draw(slots, blocks, draw, folder=folder, drawn_from=drawn_from)
    return {
        name: lazy_crops(folder / name) if len(slot.shape) == 3 else np.array(mapped(folder / name))
        for name, slot in slots.items()
    }


def _draw(slots: Mapping[str, Slot], blocks: Blocks, draw: Draw, *, folder: Path, drawn_from: str) -> None:
    drafts = {name: folder / f".{name}.partial" for name in slots}
    marks = [read_mark(draft / _DRAWN) or {} for draft in drafts.values()]
    rows = 0
    if all(mark.get("drawn_from") == drawn_from for mark in marks):
        rows = min(_written(drafts[name], slot) for name, slot in slots.items())
    start = max((b for _, b in blocks if b <= rows), default=0)
    if start:
        logger.info("%s: %d of %d cells were drawn before; going on from there", folder.parent, start, blocks[-1][1])
    with ExitStack() as stack:
        writers = {}
        for name, slot in slots.items():
            drafts[name].mkdir(parents=True, exist_ok=True)
            write_json(drafts[name] / _DRAWN, {"drawn_from": drawn_from})
            ndim = 1 + len(slot.shape)
            writers[name] = RawWriter(drafts[name], slot.dtype, ndim, keep=start * slot.bytes, length=start)
            stack.callback(writers[name].abandon)
        made = draw([(a, b) for a, b in blocks if a >= start])
        stack.callback(made.close)
        for images in made:
            for name, part in images.items():
                writers[name].append(part)
        for name, slot in slots.items():
            writers[name].close(slot.shape, shard=len(slot.shape) == 3)
    for name, draft in drafts.items():
        replace_folder(draft, folder / name)


def _written(draft: Path, slot: Slot) -> int:
    """Cells that an interrupted call left."""
    file = chunk_file(draft, 1 + len(slot.shape))
    return file.stat().st_size // slot.bytes if file.exists() else 0


def store_behind(array: Any) -> Path | None:
    """The crop store that a lazy array reads from (the first, of several); ``None`` for anything else."""
    if not hasattr(array, "dask"):
        return None
    readers: list[Any] = [crop_reader(array)]
    while readers:
        reader = readers.pop(0)
        if isinstance(reader, MappedReader):
            return reader.folder.resolve().parents[1]
        readers += list(getattr(reader, "parts", [])) or [r for r in (getattr(reader, "base", None),) if r is not None]
    return None


class OverlayReader:
    """Images of ``base``, but for the rows ``index``, which come from ``top`` (in that order)."""

    def __init__(self, base: CropReader, top: CropReader, index: np.ndarray) -> None:
        self.base, self.top = base, top
        self.index = np.asarray(index, dtype=np.int64)
        self.shape, self.dtype, self.ndim = base.shape, np.result_type(base.dtype, top.dtype), 4
        self._place = np.full(self.shape[0], -1, np.int64)
        self._place[self.index] = np.arange(len(self.index))

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        rows = np.arange(self.shape[0])[first]
        return self.take(np.atleast_1d(rows))[(slice(None) if np.ndim(rows) else 0, *rest)]

    def take(self, indices: Any) -> np.ndarray:
        """Rows in the order asked for."""
        rows = _positive(indices, self.shape[0])
        place = self._place[rows]
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for reader, here, wanted in (
            (self.base, np.flatnonzero(place < 0), rows),
            (self.top, np.flatnonzero(place >= 0), place),
        ):
            if len(here):
                out[here] = reader.take(wanted[here])
        return out

    def block(self, start: int, stop: int) -> np.ndarray:
        """A run of rows."""
        return self.take(np.arange(*slice(start, stop).indices(self.shape[0])))


def among(images: Any, index: np.ndarray, others: Any) -> Any:
    """Images of some cells (rows ``index``) among those of all: an array where both are in memory, else a lazy view of both."""
    if len(index) == len(others):
        return images
    if not (hasattr(images, "dask") or hasattr(others, "dask")):
        whole = np.array(others)
        whole[index] = images
        return whole
    return lazy(OverlayReader(crop_reader(others), crop_reader(images), index))
