"""What image models are given: expression in blocks, and random numbers that belong to a cell."""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData
from scipy import sparse

from sst import _keys
from sst._validate import check_key, check_range, get_counts

from ._halves import segmented_of, split_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ._registry import Registry


LOWEST: ContextVar[float] = ContextVar("lowest", default=0.0)
"""What expression may not lie below; what :meth:`Model.read_beyond` lets image models be shown may lie between -1 and 0."""


class ExpressionInput:
    """Expression of an object or an array in the model's gene order, read in blocks.

    Parameters
    ----------
    data
        AnnData, or an array or sparse matrix n x p in the model's gene order (n x 2 p for a model of two inputs).
    registry
        The model's.
    layer
        Layer of the AnnData (``None``: ``X``).

    Raises
    ------
    ValueError
        Genes differ, an array has another width, or values are negative or not finite (when read).
    """

    def __init__(self, data: AnnData | Any, registry: Registry, layer: str | None = None) -> None:
        self.order: np.ndarray | None = None
        self.inputs: tuple[str, ...] = ()
        if isinstance(data, AnnData):
            order = registry.check(data, layer)
            self.order = None if np.array_equal(order, np.arange(len(order))) else order
            self.names = [str(n) for n in data.obs_names]
            self.matrices = [data.X if layer is None else check_key(data, "layers", layer, name="layer")]
            if registry.inputs:
                self._tell_apart(data, registry, layer)
        else:
            if layer is not None:
                msg = f"layer={layer!r} needs an AnnData, got {type(data).__name__}."
                raise TypeError(msg)
            if getattr(data, "ndim", 0) != 2 or data.shape[1] != registry.n_inputs:
                of = f"{len(registry.genes)} genes" + (f" x {list(registry.inputs)}" if registry.inputs else "")
                msg = f"expression has shape {getattr(data, 'shape', None)}; expected (cells, {of})."
                raise ValueError(msg)
            self.matrices = [data.tocsr() if sparse.issparse(data) else data]
            self.names = [str(i) for i in range(data.shape[0])]
        self.n = len(self.names)

    def _tell_apart(self, data: AnnData, registry: Registry, layer: str | None) -> None:
        """Take the halves that were written down, or what is needed to find them."""
        recorded = [_keys.half_layer(layer, half) for half in registry.inputs]
        if layer is not None and all(name in data.layers for name in recorded):
            self.matrices = [data.layers[name] for name in recorded]
            return
        self.inputs = registry.inputs
        self.matrices += [get_counts(data, registry.layer), segmented_of(data)]

    def rows(self, a: int, b: int) -> np.ndarray:
        """Rows ``a`` to ``b - 1``, dense float32; of several inputs one beside the other."""
        parts = [_dense(matrix[a:b]) for matrix in self.matrices]
        if self.inputs:
            halves = split_rows(*parts)
            parts = [halves[half] for half in self.inputs]
        for part in parts:
            self._check(part, a)
        if self.order is not None:
            parts = [np.ascontiguousarray(part[:, self.order]) for part in parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _check(self, part: np.ndarray, first: int) -> None:
        lowest = LOWEST.get()
        if not np.isfinite(part).all() or (part < lowest).any():
            cell = self.names[first + int(np.flatnonzero(~np.isfinite(part).all(1) | (part < lowest).any(1))[0])]
            msg = f"expression of cell {cell!r} holds negative or missing values; counts are expected."
            raise ValueError(msg)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """First row and rows of each block."""
        check_range("batch_size", size, low=1)
        for a in range(0, self.n, size):
            yield a, self.rows(a, min(a + size, self.n))


def _dense(part: Any) -> np.ndarray:
    part = part.compute() if hasattr(part, "compute") else part
    return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float32)


def cell_seeds(names: Sequence[str], seed: int, sample: int = 0, use: str = "z") -> Tensor:
    """One integer a cell that depends on the seed, the sample, the use and the cell's name, and on nothing else."""
    made = []
    for name in names:
        digest = hashlib.blake2b(f"{seed}\x1f{sample}\x1f{use}\x1f{name}".encode(), digest_size=8).digest()
        made.append(int.from_bytes(digest, "little") >> 2)
    return torch.tensor(made, dtype=torch.int64)


def cell_latents(names: Sequence[str], width: int, seed: int, sample: int = 0) -> Tensor:
    """Standard normal vectors n x width, each from its cell's own generator."""
    generator = torch.Generator()
    rows = [
        torch.randn(width, generator=generator.manual_seed(int(s))) for s in cell_seeds(names, seed, sample).tolist()
    ]
    return torch.stack(rows) if rows else torch.empty(0, width)
