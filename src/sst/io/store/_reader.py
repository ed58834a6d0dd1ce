"""Read images fast, wherever they are: in memory, in a store, or behind dask."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sst._arguments import checked
from sst._keys import CROPS
from sst._validate import check_key

from ._layout import mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData

_BLOCK_BYTES = 64 << 20
_KNOWN: OrderedDict[str, CropReader] = OrderedDict()  # dask name -> a reader of the same numbers
_MOST_KNOWN = 256


class CropReader(Protocol):
    """What training asks of images: their shape and type, some rows, or a run of rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, c, h, w)."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""

    def take(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Rows in the order asked for, len(indices) x c x h x w."""

    def block(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop - 1``."""


@checked
def crop_reader(data: AnnData | Any, key: str = CROPS) -> CropReader:
    """A reader of images for training: ``take`` for random minibatches, ``block`` for runs.

    Images in memory are indexed; those of a store are read through its memory map (also after ``ad.concat`` of stores
    and after :func:`sst.pp.rescale_intensity`, which is then applied to what is read); any other dask array is computed
    block by block, which is slow for scattered rows: write it with :func:`sst.io.write_store` first.

    Parameters
    ----------
    data
        AnnData, or an array n x c x h x w (numpy or dask).
    key
        Slot in ``obsm``.
    """
    array = check_key(data, "obsm", key) if hasattr(data, "obsm") else data
    if getattr(array, "ndim", 0) != 4:
        msg = f"expected images n x c x h x w, got shape {getattr(array, 'shape', None)}."
        raise ValueError(msg)
    return known_reader(array) or (DaskReader(array) if hasattr(array, "dask") else ArrayReader(np.asarray(array)))


def register(array: Any, reader: CropReader) -> None:
    """Remember that ``reader`` gives the numbers of this dask array."""
    _KNOWN[array.name] = reader
    while len(_KNOWN) > _MOST_KNOWN:
        _KNOWN.popitem(last=False)


def lazy_crops(folder: Path) -> Any:
    """A dask array over the images in a folder of a store; ``None`` if they cannot be mapped."""
    from dask.base import tokenize

    source = MappedReader(folder)
    if source.array is None:
        return None
    stamp = (folder / "zarr.json").stat()
    return lazy(source, tokenize(str(folder.resolve()), stamp.st_mtime_ns, stamp.st_ino, source.shape))


def lazy(source: Any, token: str | None = None) -> Any:
    """A dask array over a reader that takes slices; ``token``: what its numbers depend on (``None``: itself)."""
    import dask.array as da

    shape, dtype = source.shape, np.dtype(source.dtype)
    rows = max(1, min(shape[0], _BLOCK_BYTES // max(1, int(np.prod(shape[1:])) * dtype.itemsize)))
    name = f"crops-{token or secrets.token_hex(16)}"
    array = da.from_array(
        source, chunks=(rows, *shape[1:]), name=name, asarray=False, inline_array=True, meta=np.empty((0,) * 4, dtype)
    )
    register(array, source)
    return array


class ArrayReader:
    """Images in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape = tuple(array.shape)
        self.dtype = array.dtype

    def take(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Rows in the order asked for."""
        return self.array[np.asarray(indices, dtype=np.intp)]

    def block(self, start: int, stop: int) -> np.ndarray:
        """A run of rows."""
        return self.array[start:stop]


class MappedReader:
    """Images of a store, through a memory map; travels between processes as its path."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.array: Any = mapped(self.folder)
        if self.array is not None:
            self.shape = tuple(self.array.shape)
            self.dtype = self.array.dtype
            self.ndim = self.array.ndim

    def __reduce__(self) -> tuple[Callable, tuple[Path]]:
        return MappedReader, (self.folder,)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.array(self.array[key])

    def take(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Rows in the order asked for."""
        return np.take(self.array, np.asarray(indices, dtype=np.intp), axis=0)

    def block(self, start: int, stop: int) -> np.ndarray:
        """A run of rows."""
        return np.array(self.array[start:stop])


class ConcatReader:
    """Several readers, one behind the other."""

    def __init__(self, parts: Sequence[CropReader]) -> None:
        self.parts = list(parts)
        self.ends = np.cumsum([p.shape[0] for p in self.parts])
        self.shape = (int(self.ends[-1]), *self.parts[0].shape[1:])
        self.dtype = np.result_type(*[p.dtype for p in self.parts])

    def take(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Rows in the order asked for."""
        rows = _positive(indices, self.shape[0])
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        part = np.searchsorted(self.ends, rows, side="right")
        for p in np.unique(part):
            here = np.flatnonzero(part == p)
            out[here] = self.parts[p].take(rows[here] - (self.ends[p - 1] if p else 0))
        return out

    def block(self, start: int, stop: int) -> np.ndarray:
        """A run of rows."""
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        pieces, low = [], 0
        for part, end in zip(self.parts, self.ends, strict=True):
            a, b = max(start, low), min(stop, int(end))
            if a < b:
                pieces.append(part.block(a - low, b - low))
            low = int(end)
        return np.concatenate(pieces) if pieces else np.empty((0, *self.shape[1:]), self.dtype)


class RowwiseReader:
    """A reader whose rows pass through ``function(images, rows)``."""

    def __init__(self, base: CropReader, function: Callable[[np.ndarray, np.ndarray], np.ndarray], dtype: Any) -> None:
        self.base = base
        self.function = function
        self.shape = base.shape
        self.dtype = np.dtype(dtype)

    def take(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Rows in the order asked for."""
        rows = _positive(indices, self.shape[0])
        return self.function(self.base.take(rows), rows)

    def block(self, start: int, stop: int) -> np.ndarray:
        """A run of rows."""
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        return self.function(self.base.block(start, stop), np.arange(start, stop))


class DaskReader:
    """Any dask array: whole blocks are computed, the last ones kept."""

    def __init__(self, array: Any, keep: int = 4) -> None:
        self.array = array.rechunk({1: -1, 2: -1, 3: -1})
        self.shape = tuple(array.shape)
        self.dtype = array.dtype
        self.ends = np.cumsum(self.array.chunks[0])
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()
        self._keep = keep
        self._lock = threading.Lock()

    def _block(self, b: int) -> np.ndarray:
        with self._lock:
            if b not in self._blocks:
                self._blocks[b] = np.asarray(self.array.blocks[b].compute())
                while len(self._blocks) > self._keep:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(b)
            return self._blocks[b]

    def take(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Rows in the order asked for."""
        rows = _positive(indices, self.shape[0])
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self.ends, rows, side="right")
        for b in np.unique(owner):
            here = np.flatnonzero(owner == b)
            out[here] = self._block(int(b))[rows[here] - (self.ends[b - 1] if b else 0)]
        return out

    def block(self, start: int, stop: int) -> np.ndarray:
        """A run of rows."""
        return np.asarray(self.array[start:stop].compute())


def _positive(indices: np.ndarray | Sequence[int], n: int) -> np.ndarray:
    rows = np.asarray(indices, dtype=np.intp)
    if len(rows) and (rows.min() < -n or rows.max() >= n):
        msg = f"row {int(rows.max() if rows.max() >= n else rows.min())} is out of bounds for {n} images."
        raise IndexError(msg)
    return np.where(rows < 0, rows + n, rows)


def known_reader(array: Any) -> CropReader | None:
    """The registered reader of a dask array, also where it is a concatenation of arrays that have one."""
    name = getattr(array, "name", None)
    if not hasattr(array, "dask") or name is None:
        return None
    if name in _KNOWN:
        return _KNOWN[name]
    layer = getattr(array.dask, "layers", {}).get(name)
    if layer is None or any(len(c) != 1 for c in array.chunks[1:]):
        return None
    runs: list[list[Any]] = []  # [name of a source, blocks of it]
    for i in range(len(array.chunks[0])):
        task = layer.get((name, i, 0, 0, 0))
        source = getattr(task, "target", task)  # an alias of a block of another array
        if not (isinstance(source, tuple) and len(source) == 5 and source[0] in _KNOWN and source[2:] == (0, 0, 0)):
            return None
        if not runs or runs[-1][0] != source[0] or source[1] == 0:
            runs.append([source[0], 0])
        if source[1] != runs[-1][1]:
            return None
        runs[-1][1] += 1
    parts = [_KNOWN[source] for source, _ in runs]
    if sum(p.shape[0] for p in parts) != array.shape[0]:
        return None
    return ConcatReader(parts)
