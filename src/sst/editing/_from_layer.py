"""Someone else's counterfactual as an edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._apply import Fitted
from ._matrix import BATCH_SIZE, take_rows


@dataclass(frozen=True)
class FromLayer(Fitted):
    """Take the edited values from ``matrix`` (n x p, rows as in the matrix that is edited).

    The predictions of another method (scGen, CPA, Cellina, ...) so become input for images, with the same controls,
    report and chosen genes as our own edits.
    """

    matrix: Any

    def summarize(self, X: Any, *, batch_size: int = BATCH_SIZE) -> None:
        """Nothing is learnt from the data."""

    def fit(self, source: Any = None, target: Any = None) -> FromLayer:
        """Nothing to fit."""
        return self

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """The rows of the other matrix."""
        contiguous = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        here = slice(rows[0], rows[-1] + 1) if contiguous else rows
        new = take_rows(self.matrix, here, old.dtype)
        if not np.isfinite(new).all():
            msg = "the layer to edit from holds NaN or infinite values in the cells to be edited."
            raise ValueError(msg)
        return np.array(new if genes is None else new[:, genes], dtype=old.dtype)
