"""Edits that are learnt donor by donor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._arguments import checked

from ._apply import Fitted
from ._mean import GeneWise
from ._operators import LinearMap

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Average(Fitted):
    """The mean of what several edits make of a cell."""

    edits: tuple[Fitted, ...]

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """Mean of the edits' values."""
        total = np.zeros(old.shape)
        for edit in self.edits:
            total += edit.values(block, old, genes, rows)
        return (total / len(self.edits)).astype(old.dtype)


@dataclass(frozen=True)
class ByBatch(Fitted):
    """An edit of its own for the cells of each batch.

    Attributes
    ----------
    edits
        One a batch.
    codes
        Each cell's batch, as its number in ``edits`` (n, cells of the whole matrix).
    """

    edits: tuple[Fitted, ...]
    codes: np.ndarray

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """Values of each cell by the edit of its batch."""
        mine = self.codes[rows]
        out = np.empty_like(old)
        for code in np.unique(mine):
            own = mine == code
            out[own] = self.edits[code].values(block[own], old[own], genes, rows[own])
        return out


@checked
def average(edits: Sequence[Fitted]) -> Fitted:
    """The mean of edits; of linear maps and of edits gene by gene that is one of their kind."""
    if not edits:
        msg = "edits is empty: at least one is needed."
        raise ValueError(msg)
    if len(edits) == 1:
        return edits[0]
    if all(type(edit) is LinearMap for edit in edits):
        maps: list[Any] = list(edits)
        offsets = [np.zeros(m.matrix.shape[1]) if m.offset is None else m.offset for m in maps]
        plain = all(m.offset is None for m in maps)
        return LinearMap(np.mean([m.matrix for m in maps], axis=0), None if plain else np.mean(offsets, axis=0))
    if all(type(edit) is GeneWise for edit in edits):
        genes: list[Any] = list(edits)
        return GeneWise(np.mean([g.scale for g in genes], axis=0), np.mean([g.shift for g in genes], axis=0))
    return Average(tuple(edits))
