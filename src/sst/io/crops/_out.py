"""Where paired cells go: into memory, or into a store that can be taken up again where it stopped."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from sst._files import (
    locked,
    read_mark,
    remove_folder,
    remove_leftovers,
    replace_folder,
    scratch_folder,
    sync_folder,
    write_json,
)
from sst._keys import CROPS, SEGMENTED
from sst._settings import logger
from sst.io.store import (
    PROGRESS,
    check_target,
    chunk_file,
    close_shard,
    inner_rows,
    open_store,
    partial_folder,
    run_of,
    write_csr,
    write_group,
    write_metadata,
    write_rest,
)

from ._cut import FileSink, MemorySink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

_ROWS = 4096


class Segmented:
    """Counts of the segmented cells, in blocks of rows, so that the table is never copied whole.

    Parameters
    ----------
    matrix
        X of the table: sparse, dense, or read from disk when indexed.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.rows = np.arange(matrix.shape[0])
        whole = all(np.array_equal(b.data, np.rint(b.data)) for b in self._raw()) if matrix.dtype.kind == "f" else True
        if not whole:
            logger.warning("the table's counts are not whole numbers")
        self.dtype = np.dtype(np.int32) if whole else np.dtype(matrix.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return len(self.rows), int(self.matrix.shape[1])

    def keep(self, rows: np.ndarray) -> None:
        """Only these rows of the table."""
        self.rows = rows

    def blocks(self) -> Iterator[sp.csr_matrix]:
        """Some rows after the other, whole numbers as ``int32``."""
        for block in self._raw():
            yield block.astype(self.dtype)

    def whole(self) -> sp.csr_matrix:
        """All rows."""
        return sp.vstack(list(self.blocks()), format="csr", dtype=self.dtype)

    def _raw(self) -> Iterator[sp.csr_matrix]:
        for start in range(0, len(self.rows), _ROWS):
            rows = self.rows[start : start + _ROWS]
            block = self.matrix[rows]
            block = block.compute() if hasattr(block, "compute") else block
            yield sp.csr_matrix(block if sp.issparse(block) else np.asarray(block))


@contextmanager
def open_output(
    store: str | os.PathLike[str] | None, fingerprint: str, *, overwrite: bool
) -> Iterator[MemoryOutput | StoreOutput]:
    """Where cells go: into memory, or into a store that this process has to itself meanwhile."""
    if store is None:
        with scratch_folder() as scratch:
            yield MemoryOutput(scratch / "transcripts")
    else:
        with locked(store):
            yield StoreOutput(store, fingerprint, overwrite=overwrite)


class MemoryOutput:
    """Cells in memory."""

    local = True
    finished = False
    spool_folder: Path

    def __init__(self, spool_folder: Path) -> None:
        self.spool_folder = spool_folder

    def begin(self, shape: tuple[int, ...], dtype: np.dtype, units: int) -> None:
        """Say how many cells come."""
        self.sink = MemorySink(shape, dtype)

    def done(self) -> set[int]:
        """Tiles that need not be cut again."""
        return set()

    def finish(self, adata: AnnData, segmented: Segmented | None, tiles: Sequence[tuple[int, np.ndarray]]) -> AnnData:
        """Put the cells into ``adata``."""
        adata.obsm[CROPS] = self.sink.crops
        if segmented is not None:
            adata.layers[SEGMENTED] = segmented.whole()
        if any(counts is not None for counts in self.sink.counts.values()):
            order = np.argsort(np.concatenate([rows for _, rows in tiles]), kind="stable")
            adata.X = sp.vstack([self.sink.counts[number] for number, _ in tiles], format="csr")[order]
        elif segmented is not None:
            adata.X = segmented.whole()
        return adata


class StoreOutput:
    """Cells in a store that can be taken up again where it stopped. Use it under the store's lock.

    ``<store>.partial`` holds, until the store has its name: ``progress.json``, ``transcripts`` (sorted into tiles), ``parts`` (counts
    of the tiles that are done), and ``store``, which is moved out of it when it is whole. Only then the rest is removed; so killed at
    any moment there is either everything that is needed to go on, or the whole store.

    Parameters
    ----------
    path
        Folder of the store.
    fingerprint
        Says which cells are cut how.
    overwrite
        Replace what is there.

    Attributes
    ----------
    finished
        An earlier call was killed after its store was whole: there is nothing left to do.
    """

    local = False

    def __init__(self, path: str | os.PathLike[str], fingerprint: str, *, overwrite: bool) -> None:
        self.path = Path(path)
        self.work = partial_folder(self.path)
        self.draft, self.spool_folder = self.work / "store", self.work / "transcripts"
        for name in (self.path.name, self.work.name):
            remove_leftovers(self.path.parent, name)
        said = read_mark(self.work / PROGRESS) or {}
        same = said.get("fingerprint") == fingerprint
        self.run = str(said.get("run")) if same else secrets.token_hex(8)
        self.about = {"fingerprint": fingerprint, "run": self.run}
        whole = same and bool(said.get("whole"))
        self.finished = whole and run_of(self.path) == self.run
        if self.finished:
            remove_folder(self.work)
            return
        check_target(self.path, overwrite=overwrite)
        if whole and self.draft.exists():
            logger.info("the store in %s is whole: it gets its name", self.work)
            self._give_name()
            self.finished = True
            return
        if self.work.exists():
            if same and not whole:
                logger.info("taking up the unfinished store %s", self.work)
                return
            if said and not same and not overwrite:
                msg = (
                    f"{self.work} is an unfinished store of other cells or settings: remove it, or pass overwrite=True."
                )
                raise FileExistsError(msg)
            remove_folder(self.work)
        self.work.mkdir(parents=True)
        self._write_progress({})

    def begin(self, shape: tuple[int, ...], dtype: np.dtype, units: int) -> None:
        """Make room for the cells."""
        self.shape, self.dtype = shape, np.dtype(dtype)
        file = chunk_file(self.draft / "obsm" / CROPS, 4)
        parts = self.work / "parts"
        file.parent.mkdir(parents=True, exist_ok=True)
        parts.mkdir(exist_ok=True)
        row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
        if not file.exists():
            file.touch()
        if file.stat().st_size < shape[0] * row_bytes:
            os.truncate(file, shape[0] * row_bytes)
        self.sink = FileSink(file, parts, row_bytes)
        self._write_progress({"units": units})

    def done(self) -> set[int]:
        """Tiles that need not be cut again."""
        return {int(part.stem) for part in self.sink.parts.glob("[0-9]*.npz")}

    def finish(self, adata: AnnData, segmented: Segmented | None, tiles: Sequence[tuple[int, np.ndarray]]) -> AnnData:
        """Join the tiles, write the rest, give the store its name, open it."""
        inner = inner_rows(self.shape, self.dtype)
        close_shard(self.sink.file, self.shape, self.dtype, inner)
        attributes = {"encoding-type": "array", "encoding-version": "0.2.0", "sst-mappable": True}
        write_metadata(self.draft / "obsm" / CROPS, self.shape, self.dtype, inner=inner, attributes=attributes)
        there = {f"obsm/{CROPS}"}
        counted = self._counted(tiles)
        for name in (f"layers/{SEGMENTED}", *(() if counted else ("X",))):
            if segmented is not None:
                write_csr(self.draft / name, segmented.blocks(), segmented.shape)
                there.add(name)
        if counted:
            self._join(tiles, adata.n_vars)
            there.add("X")
        write_rest(self.draft, adata, there, run=self.run)
        sync_folder(self.draft)
        self._write_progress({"whole": True})
        self._give_name()
        return open_store(self.path)

    def _give_name(self) -> None:
        replace_folder(self.draft, self.path)
        remove_folder(self.work)
        logger.info("wrote the store %s", self.path)

    def _counted(self, tiles: Sequence[tuple[int, np.ndarray]]) -> bool:
        with np.load(self.sink.part(tiles[0][0])) as part:
            return bool(part["shape"][0])

    def _join(self, tiles: Sequence[tuple[int, np.ndarray]], n_genes: int) -> None:
        """Write X: the rows of all tiles, each at its place."""
        lengths = np.zeros(self.shape[0] + 1, np.int64)
        for number, rows in tiles:
            with np.load(self.sink.part(number)) as part:
                lengths[rows + 1] = np.diff(part["indptr"])
        indptr = np.cumsum(lengths)
        folder = self.draft / "X"
        total = int(indptr[-1])
        handles = {}
        for name in ("data", "indices"):
            write_metadata(folder / name, (total,), np.dtype("i4"))
            file = chunk_file(folder / name, 1)
            if total:
                file.parent.mkdir(parents=True, exist_ok=True)
                handles[name] = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for number, rows in tiles:
                with np.load(self.sink.part(number)) as part:
                    local, arrays = part["indptr"], {name: part[name] for name in handles}
                cuts = np.flatnonzero(np.r_[True, np.diff(rows) != 1])
                for a, b in zip(cuts, np.r_[cuts[1:], len(rows)], strict=True):
                    for name, handle in handles.items():
                        os.pwrite(handle, arrays[name][local[a] : local[b]].tobytes(), int(indptr[rows[a]]) * 4)
        finally:
            for handle in handles.values():
                os.close(handle)
        kind = np.dtype("i4" if total < np.iinfo(np.int32).max else "i8")
        write_metadata(folder / "indptr", indptr.shape, kind)
        file = chunk_file(folder / "indptr", 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        indptr.astype(kind).tofile(file)
        shape = [self.shape[0], n_genes]
        write_group(folder, {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})

    def _write_progress(self, more: dict[str, Any]) -> None:
        write_json(self.work / PROGRESS, {**self.about, **more})
