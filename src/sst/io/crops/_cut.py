"""Cut the cells of one tile: its pixels and its transcripts are read once, its cells written where they belong."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy.sparse as sp
from tqdm.auto import tqdm

from sst._files import new_file
from sst._settings import logger, settings

from ._blocks import BlockCache
from ._pixels import cut_windows
from ._spool import load_points
from ._windows import count_windows, index_transcripts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CELLS_AT_ONCE = 256
_CACHE = BlockCache()


class Sink(Protocol):
    """Where cells go."""

    def write(self, rows: np.ndarray, crops: np.ndarray) -> None:
        """Images of the cells ``rows`` (ascending)."""

    def complete(self, number: int, counts: sp.csr_matrix | None) -> None:
        """A tile is whole; its counts, one row for each of its cells."""


class MemorySink:
    """Keeps cells in memory."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.crops = np.zeros(shape, dtype)
        self.counts: dict[int, sp.csr_matrix | None] = {}

    def write(self, rows: np.ndarray, crops: np.ndarray) -> None:
        """Images of the cells ``rows``."""
        self.crops[rows] = crops

    def complete(self, number: int, counts: sp.csr_matrix | None) -> None:
        """A tile is whole."""
        self.counts[number] = counts


class FileSink:
    """Writes images into one file at their place, and the counts of each tile into a file that marks it as done."""

    def __init__(self, file: Path, parts: Path, row_bytes: int) -> None:
        self.file, self.parts, self.row_bytes = file, parts, row_bytes

    def write(self, rows: np.ndarray, crops: np.ndarray) -> None:
        """Images of the cells ``rows`` (ascending): one write for each run of neighbours."""
        handle = os.open(self.file, os.O_WRONLY)
        try:
            cuts = np.flatnonzero(np.r_[True, np.diff(rows) != 1])
            for a, b in zip(cuts, np.r_[cuts[1:], len(rows)], strict=True):
                _write_all(handle, crops[a:b].tobytes(), int(rows[a]) * self.row_bytes)
        finally:
            os.close(handle)

    def complete(self, number: int, counts: sp.csr_matrix | None) -> None:
        """Make the tile's images safe, then leave its counts under their final name."""
        handle = os.open(self.file, os.O_WRONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        counts = sp.csr_matrix((0, 0), dtype=np.int32) if counts is None else counts
        with new_file(self.part(number)) as draft:
            np.savez(
                draft, indptr=counts.indptr, indices=counts.indices, data=counts.data, shape=np.array(counts.shape)
            )

    def part(self, number: int) -> Path:
        """File of a tile's counts."""
        return self.parts / f"{number:06d}.npz"


class Job:
    """The work of one tile. Not a dataclass, so that dask does not look inside for arrays to compute."""

    def __init__(
        self,
        number: int,
        image: Any,
        channels: list[int],
        rows: np.ndarray,
        corners: np.ndarray,
        size: int,
        output_size: int,
        points: Path | list[np.ndarray] | None,
        n_genes: int,
        sink: Sink,
    ) -> None:
        self.number, self.image, self.channels = number, image, channels
        self.rows, self.corners, self.size, self.output_size = rows, corners, size, output_size
        self.points, self.n_genes, self.sink = points, n_genes, sink


def run_job(job: Job) -> int:
    """Cut the cells of one tile and count their transcripts."""
    height, width = job.image.shape[1:]
    x0, y0 = np.maximum(job.corners.min(axis=0), 0)
    x1, y1 = np.minimum(job.corners.max(axis=0) + job.size, (width, height))
    pixels = _CACHE.read(job.image, job.channels, (int(y0), int(y1)), (int(x0), int(x1)))
    local = job.corners - (x0, y0)
    for start in range(0, len(job.rows), _CELLS_AT_ONCE):
        part = slice(start, start + _CELLS_AT_ONCE)
        job.sink.write(job.rows[part], cut_windows(pixels, local[part], job.size, job.output_size))
    del pixels
    counts = None
    if job.points is not None:
        points = load_points(job.points)
        index = index_transcripts(points[:, 0], points[:, 1], points[:, 2])
        del points
        counts = count_windows(index, job.corners, job.size, job.n_genes)
    job.sink.complete(job.number, counts)
    return job.number


def run_jobs(jobs: Sequence[Job], n_workers: int, *, local: bool) -> None:
    """Run all tiles: on the active dask.distributed client, in processes if dask is set so, else in threads.

    Parameters
    ----------
    jobs
        Tiles.
    n_workers
        Threads or processes.
    local
        Their results stay in this process's memory, so threads it has to be.
    """
    client = None if local else active_client()
    bar = tqdm(total=len(jobs), desc="tiles", disable=not settings.progress, leave=False)
    try:
        if client is not None:
            from distributed import as_completed as client_completed

            logger.info("cutting %d tiles on %s", len(jobs), client)
            for future in client_completed(client.map(run_job, jobs, pure=False)):
                future.result()
                bar.update()
            return
        with _executor(n_workers, local=local) as pool:
            futures = [pool.submit(run_job, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        bar.close()
        _CACHE.clear()


def _executor(n_workers: int, *, local: bool) -> Executor:
    import dask

    if not local and dask.config.get("scheduler", None) in ("processes", "multiprocessing"):
        import multiprocessing

        return ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn"))
    return ThreadPoolExecutor(n_workers)


def active_client() -> Any:
    """The ``dask.distributed`` client of this process; ``None`` without one."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def _write_all(handle: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while len(view):
        done = os.pwrite(handle, view, offset)
        view, offset = view[done:], offset + done
