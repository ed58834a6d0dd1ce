"""Edits that need no target group: multiply, silence or set genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._apply import Fitted
from ._matrix import BATCH_SIZE


@dataclass(frozen=True)
class Scale(Fitted):
    """Multiply the chosen genes by ``factor``: one number, or one per gene of the panel (p)."""

    factor: float | np.ndarray = 2.0

    def __post_init__(self) -> None:
        _check(self.factor, "factor")

    def summarize(self, X: Any, *, batch_size: int = BATCH_SIZE) -> None:
        """Nothing is learnt from the data."""

    def fit(self, source: Any = None, target: Any = None) -> Scale:
        """Nothing to fit."""
        return self

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """Multiplied values."""
        return old * _per_gene(self.factor, genes, old.dtype)


@dataclass(frozen=True)
class SetTo(Fitted):
    """Set the chosen genes to ``value`` counts: one number, or one per gene of the panel (p)."""

    value: float | np.ndarray

    def __post_init__(self) -> None:
        _check(self.value, "value")

    def summarize(self, X: Any, *, batch_size: int = BATCH_SIZE) -> None:
        """Nothing is learnt from the data."""

    def fit(self, source: Any = None, target: Any = None) -> SetTo:
        """Nothing to fit."""
        return self

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """The value, for every cell."""
        return np.array(np.broadcast_to(_per_gene(self.value, genes, old.dtype), old.shape))


@dataclass(frozen=True)
class Knockout(SetTo):
    """Set the chosen genes to 0."""

    value: float | np.ndarray = 0.0


def _per_gene(value: float | np.ndarray, genes: np.ndarray | None, dtype: Any) -> np.ndarray:
    array = np.asarray(value, dtype=dtype)
    return array if array.ndim == 0 or genes is None else array[genes]


def _check(value: float | np.ndarray, name: str) -> None:
    if not np.isfinite(value).all() or np.min(value) < 0:
        msg = f"{name}={value!r}: expected finite numbers >= 0."
        raise ValueError(msg)
