"""Cells on their way to the device: what is drawn in which iteration depends on the seed and the iteration alone."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sst._settings import logger
from sst.io.store import ArrayReader

from ._draws import Batch, Draws, jitter_counts, mix, to_unit, turn
from ._order import Order

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from sst.io import CropReader

    from ._config import DataConfig


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor to the device, through pinned memory if that is a GPU: the host does not wait for what the GPU has yet to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Expression:
    """CSR counts on a device; rows come out dense. Exact, and no more memory than the counts that are not zero."""

    def __init__(self, matrix: csr_matrix | np.ndarray, device: torch.device) -> None:
        from scipy import sparse

        matrix = sparse.csr_matrix(matrix)
        self.shape = matrix.shape
        self.device = device
        self.indptr = np.asarray(matrix.indptr, dtype=np.int64)
        # int32 is enough for columns; values are counts or edited expression
        self.columns = torch.from_numpy(np.ascontiguousarray(matrix.indices, dtype=np.int32)).to(device)
        self.values = torch.from_numpy(np.ascontiguousarray(matrix.data, dtype=np.float32)).to(device)

    def take(self, rows: np.ndarray) -> Tensor:
        """Dense rows, B x p float32, on the device. The sizes are known here, so nothing waits for the device."""
        start = self.indptr[rows]
        length = self.indptr[rows + 1] - start
        total = int(length.sum())
        flat = np.repeat(start - np.concatenate([[0], np.cumsum(length)[:-1]]), length) + np.arange(total)
        cell = np.repeat(np.arange(len(rows)), length)
        where = send(torch.from_numpy(np.stack([flat, cell])), self.device)
        out = torch.zeros((len(rows), self.shape[1]), device=self.device)
        out[where[1], self.columns[where[0]].long()] = self.values[where[0]]
        return out


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device (of the machine, for a CPU)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 4 * 2**30


class Cells:
    """The training data: crops, counts and groups of the rows chosen, on the device, in memory, or streamed.

    Parameters
    ----------
    images
        Crops of the whole object, n x c x h x w uint8.
    expression
        Counts of the rows chosen, m x p.
    labels
        Group numbers of the rows chosen, m.
    rows
        Which rows of ``images`` these are, ascending (``None``: all).
    slides
        Slide numbers of the rows chosen, m (``None``: all are of one). Batches then have as many cells of each, and the other cells that
        go with a batch come from the slide of each cell.
    config
        Augmentation and placement.
    """

    def __init__(
        self,
        images: CropReader | np.ndarray,
        expression: csr_matrix | np.ndarray,
        labels: np.ndarray,
        *,
        rows: np.ndarray | None = None,
        slides: np.ndarray | None = None,
        config: DataConfig,
    ) -> None:
        self.source: CropReader = ArrayReader(images) if isinstance(images, np.ndarray) else images
        if np.dtype(self.source.dtype) != np.uint8:
            msg = (
                f"crops are {self.source.dtype}, not uint8: rescale their intensities first (sst.pp.rescale_intensity)."
            )
            raise TypeError(msg)
        self.rows = np.arange(self.source.shape[0]) if rows is None else np.asarray(rows)
        if not len(self.rows) == expression.shape[0] == len(labels):
            msg = f"{len(self.rows)} crops, {expression.shape[0]} rows of expression and {len(labels)} labels do not pair."
            raise ValueError(msg)
        if not len(self.rows):
            msg = "no cell to train on."
            raise ValueError(msg)
        self.expression = expression
        self.labels = np.asarray(labels, dtype=np.int64)
        self.slides = None if slides is None else np.asarray(slides, dtype=np.int64)
        self.config = config
        self.n = len(self.rows)

    def loader(self, batch_size: int, seed: int, device: torch.device, *, rank: int = 0, world: int = 1) -> Loader:
        """The batches of one process."""
        return Loader(self, batch_size, seed, device, rank, world)


class Loader:
    """Batches by iteration number, the same after a restart; the time spent waiting for crops is added up in ``wait``."""

    def __init__(self, cells: Cells, batch_size: int, seed: int, device: torch.device, rank: int, world: int) -> None:
        if batch_size % world:
            msg = f"batch_size={batch_size} cannot be shared by {world} processes."
            raise ValueError(msg)
        self.cells, self.seed, self.device = cells, seed, device
        self.rank, self.size = rank, batch_size // world
        self.wait = 0.0
        config = cells.config
        needed = cells.n * math.prod(cells.source.shape[1:])
        self.placement = config.placement
        if self.placement == "auto":
            held = device.type == "cpu" and isinstance(cells.source, ArrayReader)
            on_device = held or needed <= config.memory * free_memory(device)
            in_memory = needed <= config.memory * free_memory(torch.device("cpu"))
            self.placement = "device" if on_device else "memory" if in_memory else "stream"
        stream = self.placement == "stream"
        self.order = Order(
            cells.n,
            batch_size,
            seed,
            block=config.block if stream else 0,
            buffer_blocks=config.buffer_blocks,
            slides=cells.slides,
        )
        self.expression = Expression(cells.expression, device)
        self.labels = torch.from_numpy(cells.labels).to(device)
        self.slides = None if cells.slides is None else torch.from_numpy(cells.slides).to(device)
        self.draws = Draws(device, self.size, rank, world)
        self._buffers: dict[tuple[int, int], tuple[dict[int, int], Tensor]] = {}
        self._ahead: tuple[tuple[int, int], Future[Tensor]] | None = None
        self._pool = ThreadPoolExecutor(1) if stream else None
        self.places: np.ndarray | None = None  # where the rows lie in `images`, if not at their own number
        if not stream:
            self.images = self._hold()
        logger.debug("crops: %s (%.2f GB)", self.placement, needed / 1e9)

    def _hold(self) -> Tensor:
        """All crops, on the device or in memory; an array that is in memory already is used as it is (processes may share it)."""
        source = self.cells.source
        if self.placement == "device" and self.device.type != "cpu":
            return self._load(self.cells.rows, self.device)
        if (
            isinstance(source, ArrayReader) and source.array.flags.writeable
        ):  # PyTorch wraps no other, and none is written to
            self.places = self.cells.rows
            return torch.from_numpy(source.array)
        return self._load(self.cells.rows)

    def _load(self, rows: np.ndarray, device: torch.device | None = None) -> Tensor:
        """Crops of ascending rows, runs of neighbours read in sequence; block by block onto the device."""
        source = self.cells.source
        out = torch.empty((len(rows), *source.shape[1:]), dtype=torch.uint8, device=device)
        step = self.cells.config.block
        for a in range(0, len(rows), step):
            part = rows[a : a + step]
            low, high = int(part[0]), int(part[-1]) + 1
            near = high - low <= 2 * len(part)  # mostly neighbours: one sequential read
            crops = source.block(low, high)[part - low] if near else source.take(part)
            out[a : a + step] = torch.from_numpy(np.ascontiguousarray(crops))
        return out

    def _load_buffer(self, rows: np.ndarray) -> Tensor:
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        return torch.cat([self._load(self.cells.rows[run]) for run in runs])

    def _buffer(self, epoch: int, number: int) -> tuple[dict[int, int], Tensor]:
        """Where the rows of a shuffle buffer lie in it, and its crops; the next one is read meanwhile."""
        key = (epoch, number)
        if key not in self._buffers:
            buffers = self.order.buffers(epoch)
            if self._ahead is not None and self._ahead[0] == key:
                crops = self._ahead[1].result()
            else:
                crops = self._load_buffer(buffers[number])
            places = dict(zip(buffers[number].tolist(), range(len(crops)), strict=True))
            self._buffers = dict(list(self._buffers.items())[-1:]) | {key: (places, crops)}
            following = (epoch, number + 1) if number + 1 < len(buffers) else (epoch + 1, 0)
            if self._pool is not None:
                rows = self.order.buffers(following[0])[following[1]]
                self._ahead = (following, self._pool.submit(self._load_buffer, rows))
        return self._buffers[key]

    def _stream(self, iteration: int) -> Tensor:
        """Crops of this process's share of a batch, from the shuffle buffers."""
        first = iteration * self.order.batch_size + self.rank * self.size
        out = []
        for position in range(first, first + self.size):
            epoch, place = divmod(position, self.order.n)
            ends = np.cumsum([len(rows) for rows in self.order.buffers(epoch)])
            ranks, crops = self._buffer(epoch, int(np.searchsorted(ends, place, side="right")))
            out.append(crops[ranks[self.order.epoch(epoch)[place]]])
        return torch.stack(out)

    def batch(self, iteration: int) -> Batch:
        """The cells of an iteration."""
        began = time.perf_counter()
        config, draws = self.cells.config, self.draws
        of_all = self.order.rows(iteration)
        share = slice(self.rank * self.size, (self.rank + 1) * self.size)
        rows = of_all[share]
        rng = np.random.default_rng([self.seed, iteration, 3])
        others = rng.integers(self.cells.n, size=len(of_all))[share]
        jittered = rng.random(len(of_all) + 1)[-1] < config.jitter  # the number that runs begun long ago took
        anywhere = others
        if self.slides is not None:
            others = self._of_the_slide(of_all, rng)[share]
        index = torch.from_numpy(rows)
        on_device = send(index, self.device)
        if self.placement == "stream":
            images = send(self._stream(iteration), self.device)
        elif self.images.device == self.device and self.places is None:
            images = self.images[on_device]
        else:
            places = index if self.places is None else torch.from_numpy(self.places[rows])
            images = send(self.images[places], self.device)
        self.wait += time.perf_counter() - began
        draws.generator.manual_seed(mix(self.seed, iteration))
        images = turn(to_unit(images), draws.uniform(3), rotate=config.rotate, flip=config.flip)
        counts = self.expression.take(np.concatenate([rows, others]))
        x, other = counts.split(self.size)
        if jittered:
            x = jitter_counts(x, draws.uniform(x.shape[1]), draws.uniform(x.shape[1]))
            x = x if config.jitter_negative else x.clamp_(min=0)
        labels, other_labels = self.labels[on_device], self.labels[send(torch.from_numpy(others), self.device)]
        slides = distant = None
        if self.slides is not None:
            slides, distant = self.slides[on_device], self.expression.take(anywhere)
        return Batch(index, images, x, labels, other, other_labels, draws, iteration, slides=slides, distant=distant)

    def _of_the_slide(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Another cell of the slide of each."""
        mine: Any = self.cells.slides
        u, of = rng.random(len(rows)), self.order.slides
        return np.array([of[s][int(v * len(of[s]))] for s, v in zip(mine[rows], u, strict=True)])
