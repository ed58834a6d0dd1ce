"""Cells on their way to the device: what is drawn in which iteration depends on the seed and the iteration alone."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from sst._settings import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_matrix
    from torch import Tensor

    from ._config import DataConfig


class ImageSource(Protocol):
    """Where crops come from: ``take`` scattered rows or read a ``block`` of neighbours (n x c x h x w uint8)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, c, h, w)."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""

    def take(self, idx: np.ndarray, /) -> np.ndarray:
        """Crops of these rows."""

    def block(self, a: int, b: int, /) -> np.ndarray:
        """Crops ``a`` to ``b - 1``."""


class ArraySource:
    """Crops in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def take(self, idx: np.ndarray) -> np.ndarray:
        return self.array[idx]

    def block(self, a: int, b: int) -> np.ndarray:
        return self.array[a:b]


class Draws:
    """Random numbers of one process in one iteration: its share of what a single process would draw.

    Every process draws the whole batch's numbers and keeps its own rows, so two processes with half a batch each see the same
    numbers as one with the whole batch.
    """

    def __init__(self, device: torch.device, size: int, rank: int, world: int) -> None:
        self.device = device
        self.size = size  # cells of this process
        self.rank = rank
        self.world = world
        self.generator = torch.Generator(device)
        self.average: Callable[[Tensor], Tensor] = lambda value: value  # mean over the processes, set by fit

    def _share(self, values: Tensor) -> Tensor:
        return values[self.rank * self.size : (self.rank + 1) * self.size]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, one row a cell: B x shape."""
        whole = (self.size * self.world, *shape)
        return self._share(torch.randn(whole, generator=self.generator, device=self.device))

    def uniform(self, *shape: int) -> Tensor:
        """U(0, 1), one row a cell: B x shape."""
        whole = (self.size * self.world, *shape)
        return self._share(torch.rand(whole, generator=self.generator, device=self.device))

    def scalar(self) -> Tensor:
        """One number of U(0, 1), the same on every process (on the device)."""
        return torch.rand((), generator=self.generator, device=self.device)


@dataclass
class Batch:
    """The cells of one iteration on one process.

    Attributes
    ----------
    index
        Their rows in the training data (B, on the CPU).
    images
        B x c x h x w in [-1, 1], rotated and flipped.
    expression
        B x p counts, jittered.
    labels
        B group numbers.
    other
        B x p counts of other cells, drawn independently.
    other_same
        B x p counts of other cells of the same group as each of the batch's.
    other_labels
        B group numbers of the cells of ``other``.
    draws
        Random numbers for the losses.
    iteration
        The number of the iteration.
    done, progress
        Share of the run that is over, as a number and on the device (set by :func:`fit`).
    """

    index: Tensor
    images: Tensor
    expression: Tensor
    labels: Tensor
    other: Tensor
    other_same: Tensor
    other_labels: Tensor
    draws: Draws
    iteration: int
    done: float = 0.0
    progress: Tensor = field(default_factory=lambda: torch.zeros(()))


def to_unit(images: Tensor) -> Tensor:
    """Uint8 to float32 in [-1, 1]: ``x / 127.5 - 1``."""
    return images.to(torch.float32).mul_(1 / 127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """The inverse of :func:`to_unit`, rounded and clipped."""
    return images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def turn(images: Tensor, u: Tensor, *, rotate: bool = True, flip: bool = True) -> Tensor:
    """Quarter turns and mirror images, cell by cell.

    A transposition and the two mirrors make all eight symmetries of the square; mirrors alone are those of ``flip``.

    Parameters
    ----------
    images
        B x c x h x w, square if ``rotate``.
    u
        B x 3, uniform in (0, 1).
    rotate, flip
        Which symmetries: both (8), turns alone (4), the left-right mirror alone (2).
    """
    coin = (u < 0.5)[:, :, None, None, None]
    if rotate:
        if flip:
            images = torch.where(coin[:, 0], images.transpose(2, 3), images)
            images = torch.where(coin[:, 1], images.flip(3), images)
            return torch.where(coin[:, 2], images.flip(2), images)
        images = torch.where(coin[:, 0], images.transpose(2, 3).flip(3), images)  # a quarter turn, then perhaps a half
        return torch.where(coin[:, 1], images.flip(2, 3), images)
    return torch.where(coin[:, 0], images.flip(3), images) if flip else images


def jitter_counts(x: Tensor, u: Tensor, t: Tensor) -> Tensor:
    """``x + u * t``, with ``u`` and ``t`` uniform in (0, 1); ``t`` stands for {-1, 0, 1} in equal parts."""
    return x + u * (torch.floor(t * 3) - 1)


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


class Order:
    """Which rows come in which iteration: epochs, each shuffled by the seed and its number."""

    def __init__(self, n: int, batch_size: int, seed: int, *, block: int = 0, buffer_blocks: int = 1) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.block, self.buffer_blocks = block, buffer_blocks
        self._epochs: dict[int, np.ndarray] = {}
        self._buffers: dict[int, list[np.ndarray]] = {}

    def epoch(self, number: int) -> np.ndarray:
        """The order of one epoch: all rows shuffled, or, for streams, shuffled within buffers of shuffled blocks."""
        if number not in self._epochs:
            rng = np.random.default_rng([self.seed, number, 1])
            if not self.block:
                order = rng.permutation(self.n)
            else:
                order = np.concatenate([rng.permutation(rows) for rows in self.buffers(number)])
            self._epochs = {k: v for k, v in self._epochs.items() if k == number - 1} | {number: order}
        return self._epochs[number]

    def buffers(self, number: int) -> list[np.ndarray]:
        """Rows of each buffer of an epoch of a stream, block after block."""
        if number not in self._buffers:
            starts = np.random.default_rng([self.seed, number, 2]).permutation(np.arange(0, self.n, self.block))
            groups = [starts[i : i + self.buffer_blocks] for i in range(0, len(starts), self.buffer_blocks)]
            made = [np.concatenate([np.arange(s, min(s + self.block, self.n)) for s in group]) for group in groups]
            self._buffers = {k: v for k, v in self._buffers.items() if abs(k - number) == 1} | {number: made}
        return self._buffers[number]

    def rows(self, iteration: int) -> np.ndarray:
        """The rows of the whole batch (all processes)."""
        position = np.arange(iteration * self.batch_size, (iteration + 1) * self.batch_size)
        epochs = position // self.n
        return np.concatenate([self.epoch(int(e))[position[epochs == e] % self.n] for e in np.unique(epochs)])


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
    config
        Augmentation and placement.
    """

    def __init__(
        self,
        images: ImageSource | np.ndarray,
        expression: csr_matrix | np.ndarray,
        labels: np.ndarray,
        *,
        rows: np.ndarray | None = None,
        config: DataConfig,
    ) -> None:
        self.source: ImageSource = ArraySource(images) if isinstance(images, np.ndarray) else images
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
            there = device.type == "cpu" and isinstance(cells.source, ArraySource)
            on_device = there or needed <= config.memory * free_memory(device)
            in_memory = needed <= config.memory * free_memory(torch.device("cpu"))
            self.placement = "device" if on_device else "memory" if in_memory else "stream"
        stream = self.placement == "stream"
        self.order = Order(
            cells.n, batch_size, seed, block=config.block if stream else 0, buffer_blocks=config.buffer_blocks
        )
        self.expression = Expression(cells.expression, device)
        self.labels = torch.from_numpy(cells.labels).to(device)
        self.groups = [np.flatnonzero(cells.labels == g) for g in range(int(cells.labels.max()) + 1)]
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
            isinstance(source, ArraySource) and source.array.flags.writeable
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
        whole = self.order.rows(iteration)
        share = slice(self.rank * self.size, (self.rank + 1) * self.size)
        rows = whole[share]
        rng = np.random.default_rng([self.seed, iteration, 3])
        others = rng.integers(self.cells.n, size=len(whole))[share]
        coin = rng.random(len(whole))[share]
        groups = [self.groups[g] for g in self.cells.labels[rows]]
        same = np.array([group[int(c * len(group))] for group, c in zip(groups, coin, strict=True)])
        index = torch.from_numpy(rows)
        there = send(index, self.device)
        if self.placement == "stream":
            images = send(self._stream(iteration), self.device)
        elif self.images.device == self.device and self.places is None:
            images = self.images[there]
        else:
            places = index if self.places is None else torch.from_numpy(self.places[rows])
            images = send(self.images[places], self.device)
        self.wait += time.perf_counter() - began
        draws.generator.manual_seed(mix(self.seed, iteration))
        images = turn(to_unit(images), draws.uniform(3), rotate=config.rotate, flip=config.flip)
        counts = self.expression.take(np.concatenate([rows, others, same]))
        x, other, other_same = counts.split(self.size)
        if config.jitter:
            on = rng.random() < config.jitter
            if on:
                x = jitter_counts(x, draws.uniform(x.shape[1]), draws.uniform(x.shape[1]))
                x = x if config.jitter_negative else x.clamp_(min=0)
        labels, other_labels = self.labels[there], self.labels[send(torch.from_numpy(others), self.device)]
        return Batch(index, images, x, labels, other, other_same, other_labels, draws=draws, iteration=iteration)


def mix(seed: int, iteration: int, rank: int = 0) -> int:
    """A 63-bit seed from three numbers."""
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(2, np.uint32).view(np.uint64)[0] >> 1)
