"""The real cell whose expression is nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from sst._validate import check_range
from sst.models._base import progress_bar
from sst.models._inputs import ExpressionInput, cell_seeds
from sst.train import from_dict

from ._base import Rival, log_moments, standardised

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from anndata import AnnData

    from sst.models._registry import Registry

BLOCK = 256


@dataclass(frozen=True)
class NearestConfig:
    """What is looked up.

    Attributes
    ----------
    n_cells
        Real cells to choose from.
    weighted
        Whether genes are weighted by a regression of features of the image, or all alike.
    """

    n_cells: int = 0
    weighted: bool = False


class NearestCell(Rival):
    """The crop of the real cell whose expression is nearest: a rival of generators.

    The distance is Euclidean over standardised log counts, each gene times its weight. A cell is never its own neighbour. Fit one
    with :func:`sst.tl.fit_rival` (``kind="nearest"``, ``"nearest_weighted"``).

    Parameters
    ----------
    registry
        What it was fitted on.
    config
        How many cells.
    arrays
        ``mean``, ``scale``, ``weights`` (p); ``expression`` (m x p, weighted); ``crops`` (m x c x h x w, uint8); ``names`` (m, int64).
    """

    kind: ClassVar[str] = "nearest"
    images = "nearest cell"
    _at_once = (BLOCK, BLOCK)
    config: NearestConfig

    @classmethod
    def _build(cls, registry: Registry, config: dict[str, Any]) -> Self:
        made = from_dict(NearestConfig, config)
        p, m, side = len(registry.genes), made.n_cells, registry.output_size
        sizes = {"mean": (p,), "scale": (p,), "weights": (p,), "expression": (m, p)}
        arrays: dict[str, np.ndarray] = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
        arrays["crops"] = np.zeros((m, len(registry.channels), side, side), np.uint8)
        arrays["names"] = np.zeros(m, np.int64)
        return cls(registry, made, arrays)

    @classmethod
    def fit(
        cls,
        registry: Registry,
        counts: np.ndarray,
        crops: np.ndarray,
        names: Sequence[str],
        *,
        weights: np.ndarray | None = None,
    ) -> Self:
        """Keep cells to choose from.

        Parameters
        ----------
        registry
            Of the object that the cells belong to.
        counts
            m x p, columns in the registry's order.
        crops
            m x c x h x w, uint8.
        names
            Of the cells.
        weights
            Of each gene, 0 or more (``None``: 1).
        """
        mean, scale = log_moments(counts)
        own = np.ones(counts.shape[1], np.float32) if weights is None else np.asarray(weights, np.float32)
        arrays = {
            "mean": mean,
            "scale": scale,
            "weights": own,
            "expression": standardised(counts, mean, scale) * own,
            "crops": crops,
            "names": cell_seeds(names, 0, use="name").numpy(),
        }
        return cls(registry, NearestConfig(n_cells=len(crops), weighted=weights is not None), arrays)

    def generate(
        self,
        data: AnnData | Any,
        *,
        layer: str | None = None,
        n_samples: int = 1,
        seed: int | None = 0,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Look up the crop of the nearest real cell.

        Parameters
        ----------
        data
            AnnData (genes in any order), or counts n x p in the order of ``registry.genes``.
        layer
            Layer of the AnnData with the expression (``None``: ``X``).
        n_samples
            Images of each cell: the nearest, the second nearest, ...
        seed, device
            Not used. Here so that all image models are called alike.
        batch_size
            Cells at a time.
        progress
            Show a progress bar (``None``: the setting).

        Returns
        -------
        uint8 images n x c x h x w; n x n_samples x c x h x w if ``n_samples > 1``.

        Raises
        ------
        ValueError
            Genes differ, expression is negative or missing, or there are not that many cells.
        """
        del seed, device
        crops, places = self.array("crops"), self.array("expression")
        check_range("n_samples", n_samples, low=1, high=max(len(crops) - 1, 1))
        expression = ExpressionInput(data, self.registry, layer)
        out = np.empty((expression.n, n_samples, *crops.shape[1:]), dtype=np.uint8)
        norm = np.square(places).sum(axis=1)
        names = self.array("names")
        with progress_bar(expression.n, "nearest", progress=progress, most=8 * BLOCK) as bar:
            for a, rows in expression.blocks(batch_size or self.cells_at_once()):
                b = a + len(rows)
                t = standardised(rows, self.array("mean"), self.array("scale")) * self.array("weights")
                distance = norm - 2 * t @ places.T  # up to a constant of the row
                own = cell_seeds(expression.names[a:b], 0, use="name").numpy()
                distance[own[:, None] == names] = np.inf
                out[a:b] = crops[np.argsort(distance, axis=1, kind="stable")[:, :n_samples]]
                bar.update(len(rows))
        return out[:, 0] if n_samples == 1 else out
