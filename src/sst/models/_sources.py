"""Which real cell another cell is drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sst._validate import check_range

from ._inputs import cell_seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ._inputs import ExpressionInput

MOST = 20_000  # cells among which the nearest are looked for
BLOCK = 256


def choose_sources(
    cells: ExpressionInput,
    sources: ExpressionInput,
    transform: Callable[[Tensor], Tensor],
    *,
    neighbors: int | None,
    seed: int,
    n_samples: int,
) -> np.ndarray:
    """Rows of ``sources``, n x n_samples, one for each cell and sample; never the cell itself, told by its name.

    Parameters
    ----------
    cells, sources
        Expression that is asked for, and that of the real cells.
    transform
        What counts are compared after.
    neighbors
        A random one of so many whose expression is nearest; ``None``: of all.
    seed, n_samples
        The choice depends on the cell's name, the seed and the sample alone.

    Raises
    ------
    ValueError
        There are too few sources.
    """
    check_range("neighbors", 1 if neighbors is None else neighbors, low=1, high=max(sources.n - 1, 1))
    if sources.n < 2:
        msg = f"sources: {sources.n} cells; at least 2 are needed, so that no cell is drawn from itself."
        raise ValueError(msg)
    draws = np.stack([cell_seeds(cells.names, seed, k, "source").numpy() for k in range(n_samples)], axis=1)
    row_of = {name: k for k, name in enumerate(sources.names)}
    own = np.array([row_of.get(name, -1) for name in cells.names])
    if neighbors is None:
        found = draws % (sources.n - (own >= 0))[:, None]
        return found + ((own >= 0)[:, None] & (found >= own[:, None]))
    pool = np.arange(sources.n)
    if sources.n > MOST:
        pool = np.sort(np.random.default_rng(seed).permutation(sources.n)[:MOST])
    near = _nearest(cells, sources, pool, own, transform, neighbors)
    return np.take_along_axis(near, draws % neighbors, axis=1)


@torch.no_grad()
def _nearest(
    cells: ExpressionInput,
    sources: ExpressionInput,
    pool: Sequence[int] | np.ndarray,
    own: np.ndarray,
    transform: Callable[[Tensor], Tensor],
    k: int,
) -> np.ndarray:
    """Rows of the k nearest of the pool, n x k, the cell itself left out."""
    rows = [block for _, block in sources.blocks(BLOCK)]
    centres = transform(torch.from_numpy(np.concatenate(rows)[pool]))
    place = np.full(sources.n + 1, -1)  # in the pool; the last one is for own = -1
    place[np.asarray(pool)] = np.arange(len(pool))
    found = np.empty((cells.n, k), dtype=np.int64)
    for a, block in cells.blocks(BLOCK):
        distance = torch.cdist(transform(torch.from_numpy(block)), centres)
        mine = place[own[a : a + len(block)]]
        here = np.flatnonzero(mine >= 0)
        distance[here, mine[here]] = torch.inf
        found[a : a + len(block)] = np.asarray(pool)[distance.topk(k, dim=1, largest=False).indices.numpy()]
    return found
