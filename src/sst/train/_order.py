"""Which rows come in which iteration."""

from __future__ import annotations

import numpy as np


class Order:
    """Which rows come in which iteration: epochs, each shuffled by the seed and its number.

    With ``slides`` (n codes from 0) every slide has as many places of an epoch as any other, however many cells it has: of a large one other
    cells come in every epoch, those of a small one come more than once.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        *,
        block: int = 0,
        buffer_blocks: int = 1,
        slides: np.ndarray | None = None,
    ) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.block, self.buffer_blocks = block, buffer_blocks
        self.slides = [] if slides is None else [np.flatnonzero(slides == s) for s in range(int(slides.max()) + 1)]
        self._epochs: dict[int, np.ndarray] = {}
        self._buffers: dict[int, list[np.ndarray]] = {}

    def epoch(self, number: int) -> np.ndarray:
        """The order of one epoch: all rows shuffled, or, for streams, shuffled within buffers of shuffled blocks."""
        if number not in self._epochs:
            rng = np.random.default_rng([self.seed, number, 1])
            if not self.block:
                order = self._balanced(rng, number) if self.slides else rng.permutation(self.n)
            else:
                order = np.concatenate([rng.permutation(rows) for rows in self.buffers(number)])
            self._epochs = {k: v for k, v in self._epochs.items() if k == number - 1} | {number: order}
        return self._epochs[number]

    def _shares(self, number: int) -> np.ndarray:
        """Places of each slide in an epoch; what is left over goes round."""
        count = len(self.slides)
        return self.n // count + ((np.arange(count) - number) % count < self.n % count)

    def _balanced(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """As many rows of each slide, dealt in turn, so that every batch has a like share of each."""
        rows, turns = [], []
        for mine, share in zip(self.slides, self._shares(number), strict=True):
            rounds = -(-int(share) // len(mine))
            rows.append(np.concatenate([rng.permutation(mine) for _ in range(rounds)])[:share])
            turns.append(np.arange(share) + rng.random(share))
        return np.concatenate(rows)[np.argsort(np.concatenate(turns))]

    def _balanced_blocks(self, rng: np.random.Generator, number: int) -> list[np.ndarray]:
        """Blocks of neighbouring rows, each of one slide, as many rows of each slide, dealt in turn."""
        blocks, turns = [], []
        for mine, share in zip(self.slides, self._shares(number), strict=True):
            parts = np.split(mine, np.arange(self.block, len(mine), self.block))
            left, turn = int(share), 0
            while left:
                for part in rng.permutation(len(parts)):
                    taken = parts[part][:left]
                    blocks.append(taken)
                    turns.append(turn + rng.random())
                    left, turn = left - len(taken), turn + 1
                    if not left:
                        break
        return [blocks[i] for i in np.argsort(turns)]

    def buffers(self, number: int) -> list[np.ndarray]:
        """Rows of each buffer of an epoch of a stream, block after block."""
        if number not in self._buffers:
            rng = np.random.default_rng([self.seed, number, 2])
            if self.slides:
                blocks = self._balanced_blocks(rng, number)
            else:
                starts = rng.permutation(np.arange(0, self.n, self.block))
                blocks = [np.arange(s, min(s + self.block, self.n)) for s in starts]
            groups = [blocks[i : i + self.buffer_blocks] for i in range(0, len(blocks), self.buffer_blocks)]
            made = [np.concatenate(group) for group in groups]
            self._buffers = {k: v for k, v in self._buffers.items() if abs(k - number) == 1} | {number: made}
        return self._buffers[number]

    def rows(self, iteration: int) -> np.ndarray:
        """The rows of the whole batch (all processes)."""
        position = np.arange(iteration * self.batch_size, (iteration + 1) * self.batch_size)
        epochs = position // self.n
        return np.concatenate([self.epoch(int(e))[position[epochs == e] % self.n] for e in np.unique(epochs)])
