"""Features of a cell's image by ridge regression on its expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from sst.editing import fit_latent, sparse_effects
from sst.models._inputs import ExpressionInput
from sst.train import from_dict

from ._base import Rival, log_moments, standardised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sst.models._registry import Registry

PENALTIES = 10.0 ** np.arange(-1, 6.01, 0.5)
BLOCK = 4096


@dataclass(frozen=True)
class RegressionConfig:
    """What is regressed.

    Attributes
    ----------
    features
        Names.
    logged
        Those whose logarithm is regressed: areas and intensities, which effects multiply.
    spreads
        Standard deviation of each, over the cells fitted on.
    penalty
        Ridge penalty, one for all features, found by generalised cross-validation.
    n_cells
        Cells fitted on.
    adjusted_for
        Column of obs (slides): only what varies within its categories was regressed on.
    sparse
        Whether slopes are those of few genes, noise of the counts taken off, instead of a ridge regression's.
    """

    features: tuple[str, ...] = ()
    logged: tuple[str, ...] = ()
    spreads: tuple[float, ...] = ()
    penalty: float = 0.0
    n_cells: int = 0
    adjusted_for: str = ""
    sparse: bool = False


class FeatureRegression(Rival):
    """Features of a cell's image by ridge regression on standardised log counts: a rival that draws nothing.

    Fit one with :func:`sst.tl.fit_rival` (``kind="ridge"``).

    Parameters
    ----------
    registry
        What it was fitted on.
    config
        Which features, with which penalties.
    arrays
        ``mean``, ``scale`` (p) of log counts, ``coefficients`` (f x p), ``intercepts`` (f).
    """

    kind: ClassVar[str] = "ridge"
    config: RegressionConfig
    _config: ClassVar[type[RegressionConfig]] = RegressionConfig

    @property
    def shrinkage(self) -> float:  # type: ignore[override]
        """Noise that would shrink slopes as the penalty does."""
        return self.config.penalty / max(self.config.n_cells, 1)

    @property
    def free_of_noise(self) -> bool:  # type: ignore[override]
        """Whether slopes are those of latent expression."""
        return self.config.sparse

    @property
    def adjusted_for(self) -> str:
        """Column of the slides whose differences were left out."""
        return self.config.adjusted_for

    @classmethod
    def _build(cls, registry: Registry, config: dict[str, Any]) -> Self:
        made = from_dict(cls._config, config)
        p, f = len(registry.genes), len(made.features)
        sizes = {"mean": (p,), "scale": (p,), "coefficients": (f, p), "intercepts": (f,)}
        return cls(registry, made, {name: np.zeros(size, np.float32) for name, size in sizes.items()})

    @classmethod
    def fit(
        cls,
        registry: Registry,
        counts: np.ndarray,
        measured: pd.DataFrame,
        *,
        logged: Sequence[str],
        slides: np.ndarray | None = None,
        sparse: bool = False,
        **options: Any,
    ) -> Self:
        """Regress features on expression.

        Parameters
        ----------
        registry
            Of the object that the cells belong to.
        counts
            n x p, columns in the registry's order.
        measured
            Features of the same cells' images, n x f; rows with a gap are left out.
        logged
            Features whose logarithm is regressed.
        slides
            Label of each cell: only what varies within slides is regressed on, since slides differ in light and stain, and by chance
            or by design in expression.
        sparse
            Find the few genes that act, and their slopes on latent expression (:func:`sst.editing.sparse_effects`), in place of ridge regression.
        options
            More fields of the configuration.

        Raises
        ------
        ValueError
            Fewer than ten cells have all features.
        """
        values = measured.to_numpy(float, copy=True)
        for k, name in enumerate(measured.columns):
            if name in logged:
                with np.errstate(divide="ignore", invalid="ignore"):
                    values[:, k] = np.log(values[:, k])
        fine = np.isfinite(values).all(axis=1)
        if fine.sum() < 10:
            msg = f"{int(fine.sum())} of {len(values)} cells have all of {list(measured.columns)}: at least 10 are needed."
            raise ValueError(msg)
        mean, scale = log_moments(counts[fine])
        t = standardised(counts[fine], mean, scale).astype(float)
        _, slide = np.unique(np.zeros(len(t)) if slides is None else np.asarray(slides)[fine], return_inverse=True)
        x, y = _centred(t, slide), _centred(values[fine], slide)
        if sparse:
            spread = np.where(y.std(axis=0) > 0, y.std(axis=0), 1)
            latent = fit_latent(counts[fine], slide, between=False)
            coefficients, penalty = sparse_effects(x, y / spread, latent)[0].T * spread[:, None], 0.0
        else:
            coefficients, penalty = ridge(x, y)
        config = cls._config(
            features=tuple(str(c) for c in measured.columns),
            logged=tuple(logged),
            spreads=tuple(float(s) for s in values[fine].std(axis=0)),
            penalty=penalty,
            n_cells=int(fine.sum()),
            sparse=sparse,
            **options,
        )
        arrays = {
            "mean": mean,
            "scale": scale,
            "coefficients": coefficients.astype(np.float32),
            "intercepts": values[fine].mean(axis=0).astype(np.float32),
        }
        return cls(registry, config, arrays)

    def predict(self, data: AnnData | Any, *, layer: str | None = None) -> pd.DataFrame:
        """Features under the expression of a layer.

        Parameters
        ----------
        data
            AnnData (genes in any order), or counts n x p in the order of ``registry.genes``.
        layer
            Layer of the AnnData (``None``: ``X``).

        Returns
        -------
        n x f, in the features' own units.
        """
        values = self._linear(ExpressionInput(data, self.registry, layer))
        names = self.config.features
        logged = [name in self.config.logged for name in names]
        values[:, logged] = np.exp(values[:, logged])
        index = data.obs_names if hasattr(data, "obs_names") else None
        return pd.DataFrame(values, columns=list(names), index=index)

    def gene_weights(self) -> np.ndarray:
        """Length of each gene's slopes over the features, each feature in its own standard deviations: p values."""
        spreads = np.asarray(self.config.spreads)
        return np.linalg.norm(self.array("coefficients") / np.where(spreads > 0, spreads, 1)[:, None], axis=0)

    def _linear(self, expression: ExpressionInput) -> np.ndarray:
        """Regressed values (logarithms where they are), n x f float64."""
        parts = [np.empty((0, len(self.config.features)))]
        slope, at = self.array("coefficients").astype(float), self.array("intercepts").astype(float)
        for _, rows in expression.blocks(BLOCK):
            parts.append(standardised(rows, self.array("mean"), self.array("scale")) @ slope.T + at)
        return np.concatenate(parts)


def ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Ridge regression of centred ``y`` (n x f) on ``x`` (n x p), one penalty for all columns by generalised cross-validation.

    Golub, Heath and Wahba (1979): least n RSS / (n - degrees of freedom)^2; of several columns the sum of its logarithms.

    Returns
    -------
    Coefficients f x p, and the penalty.
    """
    n = len(x)
    values, vectors = np.linalg.eigh(x.T @ x)
    values = np.clip(values, 0, None)
    projected = vectors.T @ (x.T @ y)  # p x f
    scores = []
    for penalty in PENALTIES:
        rss = (y**2).sum(axis=0) - (projected**2 * ((values + 2 * penalty) / (values + penalty) ** 2)[:, None]).sum(0)
        freedom = max(n - (values / (values + penalty)).sum(), 1e-9)
        scores.append(np.log(np.maximum(n * rss / freedom**2, 1e-300)).sum())
    best = float(PENALTIES[int(np.argmin(scores))])
    return (vectors @ (projected / (values[:, None] + best))).T, best


def _centred(values: np.ndarray, slide: np.ndarray) -> np.ndarray:
    """Values (n x k) less the mean of their slide (numbered from 0)."""
    sums = np.zeros((slide.max() + 1, values.shape[1]))
    np.add.at(sums, slide, values)
    return values - (sums / np.bincount(slide)[:, None])[slide]
