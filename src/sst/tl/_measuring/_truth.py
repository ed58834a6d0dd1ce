"""Images of edited cells against the true counterfactual, cell by cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._validate import check_choice
from sst.metrics import recovered_effect
from sst.models import image_before

from ._channels import NucleusView
from ._features import row_reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

SHAPES = ("nucleus_texture", "nucleus_eccentricity")
SMALL = 0.1
"""A true effect of less than this share of the feature's standard deviation is none: no share of it is given."""


class FeatureReader:
    """Features of an object's images: n x f.

    Parameters
    ----------
    adata
        Names the channels and the size of a pixel.
    features
        Columns of :func:`sst.metrics.nucleus_features`; ``None``: area, texture and eccentricity of the nucleus, and one intensity
        a channel.
    nucleus_channel
        Name or number; ``None``: found by its name.
    """

    def __init__(
        self, adata: AnnData, features: Sequence[str] | None = None, nucleus_channel: str | int | None = None
    ) -> None:
        self._view = NucleusView.of(adata, nucleus_channel)
        self.channels, self.nucleus = self._view.channels, self._view.nucleus
        self.features = list(features) if features is not None else ["nucleus_area", *SHAPES, *self.intensities]

    @property
    def intensities(self) -> list[str]:
        """The stain of nuclei inside the nucleus, other stains over the window; in the channels' order."""
        return [
            f"{_keys.column_name(c)}_{'nucleus' if k == self.nucleus else 'window'}_mean"
            for k, c in enumerate(self.channels)
        ]

    def __call__(self, images: np.ndarray) -> pd.DataFrame:
        """Measure images (uint8, n x c x h x w)."""
        table = self._view.measure(images, n_jobs=1)
        for feature in self.features:
            check_choice("features", feature, [c for c in table.columns if c != "nucleus_status"])
        return table[self.features]


def clusters_of(adata: AnnData, columns: str | Sequence[str] | None) -> np.ndarray:
    """Label of each cell's field: the columns that are there, joined (``None``: sample, field of view or tile)."""
    wanted = [_keys.SAMPLE, _keys.CONDITION, _keys.FOV, _keys.TILE] if columns is None else columns
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    if columns is not None:
        for column in wanted:
            check_choice("clusters", column, list(adata.obs.columns))
    there = [c for c in wanted if c in adata.obs]
    if not there:
        return np.zeros(adata.n_obs, dtype=str)
    return adata.obs[there].astype(str).agg("|".join, axis=1).to_numpy()


def fields_of(adata: AnnData, column: str) -> np.ndarray | None:
    """Label of each cell's field of view, which slides may number alike; of any other column its values (``None``: not there)."""
    if column not in adata.obs:
        return None
    slide = [c for c in (_keys.SAMPLE, _keys.CONDITION) if c in adata.obs] if column in {_keys.FOV, _keys.TILE} else []
    return clusters_of(adata, [*slide, column])


def feature_rows(
    real: pd.DataFrame,
    true: pd.DataFrame,
    changes: Sequence[pd.DataFrame],
    clusters: np.ndarray,
    gap: pd.Series,
    **options: Any,
) -> list[dict[str, Any]]:
    """One row a feature: a model's change (one table a seed) beside the true one.

    Parameters
    ----------
    real, true
        Features of the cells' crops, and of their true counterfactuals.
    changes
        Change of each feature by the model, a table a seed.
    clusters
        Label of each cell's field.
    gap
        Mean of the target's real cells - mean of the source's, by feature.
    options
        Of :func:`sst.metrics.recovered_effect`.
    """
    out = []
    for feature in changes[0].columns:
        wanted = (true[feature] - real[feature]).to_numpy(float)
        made = np.stack([c[feature].to_numpy(float) for c in changes])
        found = recovered_effect(made, wanted, clusters, **options)
        row: dict[str, Any] = {"feature": feature, **found._asdict(), "sd": float(np.nanstd(real[feature]))}
        if not abs(np.nanmean(wanted)) > SMALL * row["sd"]:  # of all cells, so that it is the same for every model
            row |= {
                "share": np.nan,
                "share_low": np.nan,
                "share_high": np.nan,
                "r": np.nan,
                "r_low": np.nan,
                "r_high": np.nan,
            }
        scale = float(gap[feature]) or np.nan
        row |= {"gap": float(gap[feature]), "of_gap": found.change / scale, "true_of_gap": found.true_change / scale}
        bounds = sorted([found.change_low / scale, found.change_high / scale])
        row |= {"of_gap_low": bounds[0], "of_gap_high": bounds[1]}
        out.append(row)
    return out


def image_row(
    truth: np.ndarray, images: Sequence[np.ndarray], clusters: np.ndarray, *, level: float, n_resamples: int, seed: int
) -> dict[str, Any]:
    """PSNR to the true counterfactual, of the mean squared error over cells (and seeds), with an interval over fields and seeds."""
    error = np.stack([_squared_error(truth, x) for x in images])
    found = recovered_effect(error, np.ones(error.shape[1]), clusters, level=level, n_resamples=n_resamples, seed=seed)
    low, high = _decibel(found.change_high), _decibel(found.change_low)
    return {"psnr": _decibel(found.change), "psnr_low": low, "psnr_high": high, "n": found.n}


def _squared_error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean squared error of each image: n values."""
    return ((x.astype(np.float32) - y) ** 2).mean(axis=(1, 2, 3))


def _decibel(error: float) -> float:
    """PSNR of a mean squared error of 8-bit images, at most 100."""
    return float(10 * np.log10(255**2 / max(error, 255**2 / 1e10))) if np.isfinite(error) else error


def read_rows(adata: AnnData, images: Any, rows: np.ndarray) -> np.ndarray:
    """Some rows of a slot's images, or of an array."""
    return row_reader(adata.obsm[images] if isinstance(images, str) else images)(rows)


def slot_before(adata: AnnData, key: str) -> str:
    """Slot of the images before an edit: the crops, or what its model drew of the cells under their own expression.

    Raises
    ------
    ValueError
        Another model has drawn into that slot since.
    """
    params = adata.uns.get(key, {}).get(_keys.PARAMS, {})
    slot = image_before(str(params.get("model_kind", "")))
    if slot not in adata.obsm:
        return _keys.CROPS
    drawn = adata.uns.get(slot, {}).get(_keys.PARAMS, {})
    mine, other = str(params.get("model_hash", "")), str(drawn.get("model_hash", ""))
    if slot != _keys.CROPS and mine and other and mine != other:
        msg = (
            f"obsm[{slot!r}] was drawn by the model {other}, the edit {key!r} is by {mine}: measure an edit before another "
            "model draws the cells, or use models that start from the crop."
        )
        raise ValueError(msg)
    of_edit = str(adata.uns.get(key, {}).get(_keys.REPORT, {}).get("expression_hash", ""))
    of_slot = str(drawn.get("expression_hash", ""))
    if slot != _keys.CROPS and of_edit and of_slot and of_edit != of_slot:
        msg = f"obsm[{slot!r}] was drawn from other counts than those that the edit {key!r} started from: edit again."
        raise ValueError(msg)
    return slot
