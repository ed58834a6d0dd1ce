"""Images that are drawn, not cut: into memory or, block by block, into a folder that the same call can take up again."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._files import locked, read_mark, replace_folder, write_json
from sst._settings import logger

from ._layout import RawWriter
from ._reader import CropReader, MappedReader, _positive, crop_reader, lazy, lazy_crops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_DRAWN = "drawn.json"  # in a folder of pictures: what they were drawn from


def draw_in_memory(
    names: Iterable[str], blocks: list[tuple[int, int]], shape: tuple[int, ...], draw: Callable[[int, int], dict]
) -> dict[str, np.ndarray]:
    """Draw every block; ``draw(a, b)`` gives the images of rows a to b - 1 by name. Arrays ``shape`` uint8, by name."""
    out = {name: np.empty(shape, np.uint8) for name in names}
    for a, b in blocks:
        for name, images in draw(a, b).items():
            out[name][a:b] = images
    return out


def draw_to_store(
    names: Iterable[str],
    blocks: list[tuple[int, int]],
    shape: tuple[int, ...],
    draw: Callable[[int, int], dict],
    *,
    store: Path,
    drawn_from: str,
) -> dict[str, Any]:
    """Draw every block into ``store/obsm/<name>``; what an earlier call of the same kind left is kept and gone on from.

    Parameters
    ----------
    names
        Of the pictures.
    blocks
        Runs of rows, in order.
    shape
        Of the whole, n x c x h x w.
    draw
        Rows a to b - 1: name -> images.
    store
        Folder; made if it is not there.
    drawn_from
        Hash of everything that the pictures depend on.

    Returns
    -------
    Lazy arrays by name.

    Raises
    ------
    FileExistsError
        The store holds other pictures of one of these names.
    BlockingIOError
        Another process is drawing there.
    """
    names = list(names)
    folder = store / "obsm"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(store, "drawn into"):
        done = [read_mark(folder / name / _DRAWN) for name in names]
        for name, mark in zip(names, done, strict=True):
            if (folder / name).exists() and (mark or {}).get("drawn_from") != drawn_from:
                msg = f"{folder / name} holds other pictures: name another store, or remove it."
                raise FileExistsError(msg)
        if not all(done):
            _draw(names, blocks, shape, draw, folder=folder, drawn_from=drawn_from)
    return {name: lazy_crops(folder / name) for name in names}


def _draw(
    names: list[str],
    blocks: list[tuple[int, int]],
    shape: tuple[int, ...],
    draw: Callable[[int, int], dict],
    *,
    folder: Path,
    drawn_from: str,
) -> None:
    """Reading and drawing go on while the block before is written."""
    drafts = {name: folder / f".{name}.partial" for name in names}
    marks = [read_mark(draft / _DRAWN) or {} for draft in drafts.values()]
    whole = int(np.prod(shape[1:]))
    rows = 0
    if all(mark.get("drawn_from") == drawn_from for mark in marks):
        rows = min(_written(draft) for draft in drafts.values()) // whole
    start = max((b for _, b in blocks if b <= rows), default=0)
    if start:
        logger.info("%s: %d of %d cells were drawn before; going on from there", folder.parent, start, shape[0])
    with ExitStack() as stack:
        writers = {}
        for name, draft in drafts.items():
            draft.mkdir(parents=True, exist_ok=True)
            write_json(draft / _DRAWN, {"drawn_from": drawn_from})
            writers[name] = RawWriter(draft, np.dtype(np.uint8), 4, keep=start * whole, length=start)
            stack.callback(writers[name].abandon)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        before: Future | None = None
        for a, b in blocks:
            if a < start:
                continue
            images = draw(a, b)
            if before is not None:
                before.result()
            before = pool.submit(_append, writers, images)
        if before is not None:
            before.result()
        for writer in writers.values():
            writer.close(shape[1:], shard=True)
    for name, draft in drafts.items():
        replace_folder(draft, folder / name)


def _append(writers: dict[str, RawWriter], images: dict[str, np.ndarray]) -> None:
    for name, rows in images.items():
        writers[name].append(rows)


def _written(draft: Path) -> int:
    file = draft / "c/0/0/0/0"
    return file.stat().st_size if file.exists() else 0


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
