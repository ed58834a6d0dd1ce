"""Fit a rival: what a model has to be better than."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sst import _keys
from sst._settings import logger
from sst._validate import check_choice, check_key, check_range, resolve_table
from sst.editing import take_rows
from sst.metrics import nucleus_features
from sst.models import FeatureRegression, Morph, NearestCell, Registry

from ._measuring import channel_names, find_nucleus_channel, get_images, row_reader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

KINDS = ("morph", "nearest", "nearest_weighted", "ridge")
SHAPES = ("nucleus_texture", "nucleus_eccentricity")


def fit_rival(
    adata: AnnData | SpatialData,
    kind: str = "morph",
    *,
    groupby: str | None = None,
    features: Sequence[str] | None = None,
    nucleus_channel: str | int | None = None,
    layer: str | None = None,
    n_max: int = 3000,
    n_cells: int = 20_000,
    seed: int = 0,
    out: str | Path | None = None,
    table_key: str = _keys.TABLE,
) -> FeatureRegression | Morph | NearestCell:
    """Fit a rival of the image models on training cells: small, quick, and often hard to beat.

    Wherever no truth is known, a picture made by a model is worth as much as it is better than these. All but ``"ridge"`` are
    image models: ``sst.tl.edit(adata, genes=..., model=rival)``.

    Parameters
    ----------
    adata
        Paired cells with ``uint8`` crops; those of ``obs["split"] == "train"`` are fitted on (without that column: all).
    kind
        ``"morph"``: a regression of log area and intensities on expression, then the cell's own nucleus is scaled about its centre
        and its channels multiplied (:class:`sst.models.Morph`). ``"nearest"``: the crop of the training cell whose expression is
        nearest (:class:`sst.models.NearestCell`). ``"nearest_weighted"``: the same, genes weighted by a ridge regression of
        ``features``. ``"ridge"``: features alone, no picture (:class:`sst.models.FeatureRegression`).
    groupby
        Column of ``obs`` with the groups, for the model's registry.
    features
        For ``"ridge"`` and ``"nearest_weighted"``: columns of :func:`sst.metrics.nucleus_features`; ``None``: area, texture and
        eccentricity of the nucleus, its stain's mean inside it, and the mean of each other channel over the window.
    nucleus_channel
        Name or number of the channel that shows nuclei; ``None``: found by its name.
    layer
        Counts (``None``: ``X``).
    n_max
        Most cells whose images are measured for a regression.
    n_cells
        Most cells to choose from, for the nearest.
    seed
        Of the choice of cells.
    out
        Folder to save it to.
    table_key
        Table of a SpatialData.

    Returns
    -------
    The rival; ``model="last"`` does not mean it.

    Raises
    ------
    ValueError
        An unknown ``kind``; too few cells have a nucleus.
    KeyError
        Crops, layer or channel are not there.
    """
    table = resolve_table(adata, table_key)
    check_choice("kind", kind, KINDS)
    check_range("n_max", n_max, low=10)
    check_range("n_cells", n_cells, low=2)
    get_images(table, _keys.CROPS)
    counts = table.X if layer is None else check_key(table, "layers", layer, name="layer")
    rows = np.arange(table.n_obs)
    if _keys.SPLIT in table.obs:
        rows = np.flatnonzero((table.obs[_keys.SPLIT].astype(str) == "train").to_numpy())
    rng = np.random.default_rng(seed)
    channels = channel_names(table)
    nucleus = find_nucleus_channel(channels, nucleus_channel)
    named = {"nearest_weighted": "nearest"}.get(kind, kind)
    registry = Registry.from_adata(table, groupby=groupby, kind=named)
    model: FeatureRegression | Morph | NearestCell
    if kind in {"nearest", "nearest_weighted"}:
        weights = None
        if kind == "nearest_weighted":
            wanted = list(features) if features is not None else default_features(channels, nucleus)
            measured, near = _measure(table, counts, rows, wanted, channels, nucleus, n_max, rng)
            fitted = FeatureRegression.fit(registry, near, measured, logged=_logged(wanted))
            weights = gene_weights(fitted, measured)
        kept = _some(rows, n_cells, rng)
        crops = row_reader(table.obsm[_keys.CROPS])(kept)
        model = NearestCell.fit(
            registry, take_rows(counts, kept), crops, [str(n) for n in table.obs_names[kept]], weights=weights
        )
    else:
        wanted = list(features) if features is not None and kind == "ridge" else default_features(channels, nucleus)
        if kind == "morph":
            wanted = ["nucleus_area", *_intensities(channels, nucleus)]
        measured, near = _measure(table, counts, rows, wanted, channels, nucleus, n_max, rng)
        if kind == "morph":
            model = Morph.fit(registry, near, measured, logged=wanted, nucleus_channel=nucleus)
        else:
            model = FeatureRegression.fit(registry, near, measured, logged=_logged(wanted))
    if out is not None:
        model.save(out)
    logger.info("fitted the rival %r on %d cells", kind, model.config.n_cells)
    return model


def default_features(channels: Sequence[str], nucleus: int) -> list[str]:
    """Area and shape of the nucleus, and one intensity a channel."""
    return ["nucleus_area", *SHAPES, *_intensities(channels, nucleus)]


def _intensities(channels: Sequence[str], nucleus: int) -> list[str]:
    """The stain of nuclei inside the nucleus, other stains over the window; in the channels' order."""
    return [f"{_keys.column_name(c)}_{'nucleus' if k == nucleus else 'window'}_mean" for k, c in enumerate(channels)]


def gene_weights(fitted: FeatureRegression, measured: pd.DataFrame) -> np.ndarray:
    """Length of each gene's slopes over the features, each feature in its own standard deviations."""
    values = measured.to_numpy(float, copy=True)
    for k, name in enumerate(measured.columns):
        if name in fitted.config.logged:
            with np.errstate(divide="ignore", invalid="ignore"):
                values[:, k] = np.log(values[:, k])
    values[~np.isfinite(values)] = np.nan
    spread = np.nanstd(values, axis=0)
    slopes = fitted.array("coefficients") / np.where(spread > 0, spread, 1)[:, None]
    return np.linalg.norm(slopes, axis=0)


def _logged(features: Sequence[str]) -> list[str]:
    return [f for f in features if f.endswith(("_mean", "_total")) or f in {"nucleus_area", "nucleus_area_px"}]


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _measure(
    table: AnnData,
    counts: object,
    rows: np.ndarray,
    features: Sequence[str],
    channels: Sequence[str],
    nucleus: int,
    n_max: int,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Features of the real crops of some training cells, and their counts."""
    kept = _some(rows, n_max, rng)
    pixel_size = float(table.uns.get(_keys.CROPS, {}).get("pixel_size", 0.0) or 0.0)
    images = row_reader(table.obsm[_keys.CROPS])(kept)
    measured = nucleus_features(
        images, nucleus_channel=nucleus, channels=channels, pixel_size=pixel_size or None, n_jobs=1
    )
    for feature in features:
        check_choice("features", feature, [c for c in measured.columns if c != "nucleus_status"])
    return measured[list(features)], take_rows(counts, kept)
