"""Fit a rival: what a model has to be better than."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._settings import logger
from sst._validate import check_choice, check_key, check_range, get_counts, resolve_table
from sst.editing import take_rows
from sst.models import FeatureRegression, Morph, NearestCell, Registry

from ._measuring import FeatureReader, get_images, row_reader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

KINDS = ("morph", "morph_lasso", "nearest", "nearest_weighted", "ridge", "lasso")


@checked
def fit_rival(
    adata: AnnData | SpatialData,
    kind: str = "morph",
    *,
    groupby: str | None = None,
    features: Sequence[str] | None = None,
    nucleus_channel: str | int | None = None,
    layer: str | None = None,
    adjust: str | None = "auto",
    n_max: int = 3000,
    n_cells: int = 20_000,
    seed: int = 0,
    out: str | Path | None = None,
    table_key: str = _keys.TABLE,
) -> FeatureRegression | Morph | NearestCell:
    """Fit a rival of the image models on training cells: small, quick, and often hard to beat.

    Wherever no truth is known, a picture made by a model is worth as much as it is better than these. All but ``"ridge"`` and ``"lasso"`` are
    image models: ``sst.tl.edit(adata, genes=..., model=rival)``.

    Parameters
    ----------
    adata
        Paired cells with ``uint8`` crops; those of ``obs["split"] == "train"`` are fitted on (without that column: all).
    kind
        ``"morph"``: a regression of log area and intensities on expression, then the cell's own nucleus is scaled about its centre
        and its channels multiplied (:class:`sst.models.Morph`). ``"nearest"``: the crop of the training cell whose expression is
        nearest (:class:`sst.models.NearestCell`). ``"nearest_weighted"``: the same, genes weighted by a ridge regression of
        ``features``. ``"ridge"``: features alone, no picture (:class:`sst.models.FeatureRegression`). ``"lasso"``, ``"morph_lasso"``: the
        regressions' slopes are those of few genes, noise of the counts taken off (:func:`sst.editing.sparse_effects`).
    groupby
        Column of ``obs`` with the groups, for the model's registry.
    features
        For ``"ridge"`` and ``"nearest_weighted"``: columns of :func:`sst.metrics.nucleus_features`; ``None``: area, texture and
        eccentricity of the nucleus, its stain's mean inside it, and the mean of each other channel over the window.
    nucleus_channel
        Name or number of the channel that shows nuclei; ``None``: found by its name.
    layer
        Counts (``None``: ``X``).
    adjust
        For regressions: column of ``obs`` whose categories (slides) may differ in light, stain and depth: slopes are learnt from
        what varies within them. ``"auto"``: ``"sample"`` where there are more of them than groups; ``None``: from all cells alike, and so from what sets
        slides apart, too.
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
    counts = get_counts(table, layer)
    rows = np.arange(table.n_obs)
    if _keys.SPLIT in table.obs:
        rows = np.flatnonzero((table.obs[_keys.SPLIT].astype(str) == "train").to_numpy())
    rng = np.random.default_rng(seed)
    read = FeatureReader(table, features, nucleus_channel)
    registry = Registry.from_adata(
        table,
        groupby=groupby,
        kind=kind.removesuffix("_weighted").removesuffix("_lasso").replace("lasso", "ridge"),
        layer=layer,
    )
    model: FeatureRegression | Morph | NearestCell
    if kind.startswith("morph"):
        read.features = ["nucleus_area", *read.intensities]
    if kind != "nearest":
        near = _some(rows, n_max, rng)
        measured, known = read(row_reader(table.obsm[_keys.CROPS])(near)), take_rows(counts, near)
        if adjust == "auto":
            adjust = _several_slides(table, groupby)
        slides = None if adjust is None else check_key(table, "obs", adjust, name="adjust").astype(str).to_numpy()[near]
        options: dict[str, Any] = {"slides": slides, "adjusted_for": adjust or "", "sparse": kind.endswith("lasso")}
        logged = [f for f in read.features if f.endswith(("_mean", "_total")) or "_area" in f]
    if kind.startswith("morph"):
        model = Morph.fit(registry, known, measured, logged=logged, nucleus_channel=read.nucleus, **options)
    elif kind in ("ridge", "lasso"):
        model = FeatureRegression.fit(registry, known, measured, logged=logged, **options)
    else:
        weights = None
        if kind == "nearest_weighted":
            weights = FeatureRegression.fit(registry, known, measured, logged=logged, **options).gene_weights()
        kept = _some(rows, n_cells, rng)
        crops, names = row_reader(table.obsm[_keys.CROPS])(kept), [str(n) for n in table.obs_names[kept]]
        model = NearestCell.fit(registry, take_rows(counts, kept), crops, names, weights=weights)
    if out is not None:
        model.save(out)
    logger.info("fitted the rival %r on %d cells", kind, model.config.n_cells)
    return model


def _several_slides(table: AnnData, groupby: str | None) -> str | None:
    """The slides' column, if there are more of them than groups."""
    if _keys.SAMPLE not in table.obs:
        return None
    groups = 1 if groupby is None else table.obs[groupby].nunique()
    return _keys.SAMPLE if table.obs[_keys.SAMPLE].nunique() > groups else None


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
