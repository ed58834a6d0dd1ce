"""Match the mean of each gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._apply import Fitted
from ._matrix import BATCH_SIZE
from ._moments import Moments
from ._operators import check_pair, moments_of


@dataclass(frozen=True)
class GeneWise(Fitted):
    """x -> x * scale + shift, gene by gene (both of length p)."""

    scale: np.ndarray
    shift: np.ndarray

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """Scaled and shifted values."""
        here = slice(None) if genes is None else genes
        return old * self.scale[here].astype(old.dtype) + self.shift[here].astype(old.dtype)


@dataclass(frozen=True)
class Mean:
    """Give each gene of the source its mean in the target.

    Parameters
    ----------
    mode
        ``"shift"`` adds the difference of the means; ``"scale"`` multiplies by their ratio (keeps zeros and counts >= 0;
        a gene absent from the source is shifted instead); ``"standardize"`` matches mean and standard deviation.
    """

    mode: str = "shift"

    def __post_init__(self) -> None:
        if self.mode not in {"shift", "scale", "standardize"}:
            msg = f"mode={self.mode!r} is not known. Possible: 'shift', 'scale', 'standardize'."
            raise ValueError(msg)

    def summarize(self, X: Any, *, batch_size: int = BATCH_SIZE) -> Moments:
        """Moments of a group."""
        return Moments.of(X, batch_size=batch_size)

    def fit(self, source: Any, target: Any) -> GeneWise:
        """Fit to two groups: matrices (cells x genes), or their :class:`Moments`."""
        first, second = moments_of(source, name="source"), moments_of(target, name="target")
        check_pair(first, second)
        scale = np.ones_like(first.mean)
        if self.mode == "scale":
            present = first.mean > 0
            scale[present] = second.mean[present] / first.mean[present]
        elif self.mode == "standardize":
            varies = first.variance > 0
            scale[varies] = np.sqrt(second.variance[varies] / first.variance[varies])
        return GeneWise(scale, second.mean - first.mean * scale)
