"""Which rows come in which iteration."""

from __future__ import annotations

import numpy as np


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
