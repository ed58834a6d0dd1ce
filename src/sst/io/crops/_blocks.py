"""Read parts of a lazy image that overlap, without computing a chunk twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

_LIMIT = 320 << 20  # bytes: a row of chunks of a slide, two channels


class BlockCache:
    """The chunks of dask images computed last, as many as fit; shared by the threads of a process."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self.limit = limit
        self._blocks: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._busy: dict[tuple, threading.Lock] = {}

    def read(self, image: Any, channels: list[int], rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """``image[channels, rows[0]:rows[1], columns[0]:columns[1]]`` of a numpy or dask image c x y x x."""
        (y0, y1), (x0, x1) = rows, columns
        if not hasattr(image, "dask"):
            return np.ascontiguousarray(image[:, y0:y1, x0:x1][channels])
        out = np.empty((len(channels), y1 - y0, x1 - x0), image.dtype)
        starts = [np.r_[0, np.cumsum(c)] for c in image.chunks]
        for i in np.unique(np.searchsorted(starts[0], channels, side="right") - 1):
            mine = [(k, c - starts[0][i]) for k, c in enumerate(channels) if starts[0][i] <= c < starts[0][i + 1]]
            for j in range(np.searchsorted(starts[1], y0, side="right") - 1, np.searchsorted(starts[1], y1)):
                a, b = max(y0, starts[1][j]), min(y1, starts[1][j + 1])
                for k in range(np.searchsorted(starts[2], x0, side="right") - 1, np.searchsorted(starts[2], x1)):
                    c, d = max(x0, starts[2][k]), min(x1, starts[2][k + 1])
                    block = self._block(image, (int(i), int(j), int(k)))
                    inner = (slice(a - starts[1][j], b - starts[1][j]), slice(c - starts[2][k], d - starts[2][k]))
                    for at, channel in mine:
                        out[at, a - y0 : b - y0, c - x0 : d - x0] = block[channel][inner]
        return out

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._blocks.clear()
            self._busy.clear()
            self._held = 0

    def _block(self, image: Any, where: tuple[int, int, int]) -> np.ndarray:
        key = (image.name, *where)
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:  # two threads that want the same chunk: the second waits for the first
            with self._lock:
                if key in self._blocks:
                    self._blocks.move_to_end(key)
                    return self._blocks[key]
            block = np.asarray(image.blocks[where].compute(scheduler="synchronous"))
            with self._lock:
                self._blocks[key] = block
                self._held += block.nbytes
                while self._held > self.limit and len(self._blocks) > 1:
                    old, gone = self._blocks.popitem(last=False)
                    self._busy.pop(old, None)
                    self._held -= gone.nbytes
        return block
