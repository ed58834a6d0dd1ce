"""How a feature changes as genes are turned down and up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst import _keys
from sst._arguments import checked
from sst._settings import logger, settings
from sst._validate import check_groups, check_key, check_range, get_counts, resolve_subset, resolve_table
from sst.editing import bootstrap_mean, check_counts, resolve_genes

from ._editing import Drawing, Features, Measure, check_scale, model_record, pick_cells, say_floor
from ._measuring import fields_of
from ._rank_genes_effect import require_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@checked
def dose_response(
    adata: AnnData | SpatialData,
    genes: str | Iterable[str] | Mapping[str, Iterable[str]],
    factors: Sequence[float] = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0),
    *,
    groupby: str | None = None,
    features: Features = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    layer: str | None = None,
    model: Any = "last",
    n_cells: int = 128,
    fovs: str = _keys.FOV,
    fade: float | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    batch_size: int | None = None,
    key_added: str = "dose_response",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Multiply genes by factors and measure the images.

    Parameters
    ----------
    adata
        Paired cells.
    genes
        A gene, a list (each gene for itself), or ``{set: genes}`` (the genes of a set together).
    factors
        What the counts are multiplied by; 1 is no change, 0 a knock-out.
    groupby
        Column of ``obs`` with the groups (default: the model's, else ``"condition"``).
    features
        Columns of :func:`sst.metrics.nucleus_features`, a function of images, ``{name: function}``, or ``None`` for the
        nucleus' area and each channel's mean.
    subset
        Cells to draw from.
    layer
        Counts, ``None`` for ``X``.
    model
        Image model, as in :func:`sst.tl.edit`; there must be one.
    n_cells
        Cells per group, held-out ones if ``obs["split"]`` has them.
    fovs
        Column of ``obs`` with the fields of view, which slides may number alike; ``"donor"``: intervals over donors.
    fade
        For an inversion: how far the code of the pixels has faded.
    n_resamples
        Resamples of each interval.
    seed
        Of the cells, of latent and noise.
    batch_size
        Images at a time.
    key_added
        Slot in ``uns``.
    copy
        Return a copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes ``uns[key_added]``: ``params`` and ``table``, a DataFrame with a row per gene (or set),
    group, factor and feature: ``mean`` change against factor 1 in the same cells, ``low``, ``high`` (95 %, resampling cells),
    ``low_fov``, ``high_fov`` (resampling fields), ``n``, and ``level``, the feature's mean itself.

    Raises
    ------
    KeyError
        A gene, feature or column is unknown, or there is no model.
    ValueError
        A factor is negative.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    if len(factors) == 0:
        msg = "factors is empty."
        raise ValueError(msg)
    for factor in factors:
        check_range("factor", float(factor), low=0)
    check_range("n_cells", n_cells, low=1)
    image_model = require_model(table, model)
    groupby = groupby or getattr(image_model.registry, "groupby", None) or _keys.CONDITION
    X = get_counts(table, layer)
    check_scale(image_model, X, layer)
    check_counts(X, list(table.var_names))
    drawing = Drawing(seed=seed, fade=fade, batch_size=batch_size)
    sets = _sets(genes, list(table.var_names))
    measure = Measure(table, features)
    mask = resolve_subset(table, subset)
    labels = check_key(table, "obs", groupby, name="groupby").astype(str).to_numpy()
    clusters = fields_of(table, fovs)
    rows: list[dict[str, Any]] = []
    groups = [g for g in check_groups(table, groupby) if (mask & (labels == g)).any()]
    bar = tqdm(total=len(groups) * len(sets) * len(factors), desc="doses", disable=not settings.progress, leave=False)
    for group in groups:
        here = mask & (labels == group)
        cells = pick_cells(table, X, here, n_cells=n_cells, seed=seed, model=image_model, prefer="test")
        own = None if clusters is None else clusters[cells.index]
        base = measure(cells.draw(image_model, cells.X, drawing))
        for name, members in sets.items():
            columns = table.var_names.get_indexer(members)
            for factor in factors:
                after = base
                if factor != 1:
                    changed = cells.X.copy()
                    changed[:, columns] *= factor
                    if factor < 1:
                        say_floor(image_model, columns, changed[:, columns], list(table.var_names))
                    after = measure(cells.draw(image_model, changed, drawing))
                for k, feature in enumerate(measure.names):
                    got = bootstrap_mean(after[:, k] - base[:, k], own, n_resamples=n_resamples, seed=seed)
                    rows.append(
                        {
                            "genes": name,
                            "group": group,
                            "factor": float(factor),
                            "feature": feature,
                            "mean": got.mean,
                            "low": got.low,
                            "high": got.high,
                            "low_fov": got.low_clusters,
                            "high_fov": got.high_clusters,
                            "n": got.n,
                            "level": float(np.nanmean(after[:, k])) if np.isfinite(after[:, k]).any() else np.nan,
                        }
                    )
                bar.update(1)
    bar.close()
    params = {
        "genes": list(sets),
        "factors": [float(f) for f in factors],
        "groupby": groupby,
        "layer": layer,
        "n_cells": n_cells,
        "fade": fade,
        "n_resamples": n_resamples,
        "seed": seed,
        **model_record(table, image_model),
    }
    frame = pd.DataFrame(rows, index=[str(k) for k in range(len(rows))])
    _keys.write_params(table, key_added, params, table=frame)
    logger.info("measured %d doses: uns[%r]", len(sets) * len(factors), key_added)
    return table if copy else None


def _sets(genes: Any, var_names: list[str]) -> dict[str, list[str]]:
    if isinstance(genes, Mapping):
        return {str(name): resolve_genes({name: members}, var_names) or [] for name, members in genes.items()}
    if genes is None:
        msg = "genes=None: name the genes (or sets of genes) to turn down and up."
        raise ValueError(msg)
    return {gene: [gene] for gene in resolve_genes(genes, var_names) or []}
