"""Which genes drive a feature of the images that a trained model draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats
from tqdm.auto import tqdm

from sst import _keys
from sst._arguments import checked
from sst._settings import logger, settings
from sst._validate import check_choice, check_groups, check_key, check_range, get_counts, resolve_subset, resolve_table
from sst.editing import check_counts, resolve_genes, take_rows

from ._editing import Cells, Drawing, Features, Measure, check_scale, find_model, model_record, pick_cells, say_floor
from ._measuring import fields_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from ._editing import TorchFeature

METHODS = ["difference", "gradient", "both"]
PERTURBATIONS = ["sd", "double", "knockout"]
MOST_CELLS = 20_000


@checked
def rank_genes_effect(
    adata: AnnData | SpatialData,
    feature: Features = "nucleus_area",
    groupby: str | None = None,
    *,
    method: str = "difference",
    perturbation: str | float = "sd",
    genes: str | Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    toward: str | None = None,
    gradient_feature: TorchFeature | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    layer: str | None = None,
    model: Any = "last",
    batch_key: str | None = None,
    n_cells: int = 64,
    n_steps: int = 16,
    fade: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    key_added: str = "rank_genes_effect",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Rank genes by what they do to a feature of the images.

    ``"difference"``: each gene of each cell is changed by itself, the image drawn again with the same latent and noise, and
    the feature measured again; this is exact, and works for any feature. ``"gradient"``: integrated gradients along the path
    from a cell's expression to its edited one; they share out the change of the feature among all genes at once,
    interactions included, and need a feature that can be differentiated.

    Parameters
    ----------
    adata
        Paired cells.
    feature
        A column of :func:`sst.metrics.nucleus_features` (``"nucleus_area"``, ``"DAPI_window_mean"``, ...), a function of
        images (n x c x h x w uint8 -> n), or ``{name: function}``.
    groupby
        Column of ``obs`` with the groups (default: the model's, else ``"condition"``).
    method
        ``"difference"``, ``"gradient"`` or ``"both"``.
    perturbation
        ``"sd"``: one standard deviation of the gene in its group more; ``"double"``; ``"knockout"``; or a number of counts.
    genes
        Genes to rank, ``None`` for all.
    toward
        For gradients: layer with the edited expression; ``None`` for the mean of the other groups' cells.
    gradient_feature
        For gradients: a function of torch images (n x c x h x w, 0..255) -> n, where the feature is one of your own.
    subset
        Cells to draw from.
    layer
        Counts, ``None`` for ``X``.
    model
        Image model, as in :func:`sst.tl.edit`; there must be one.
    batch_key
        Column of ``obs`` with the donors (or slides): as many cells of each, means over donors, intervals and tests over donors in place of
        cells, and standard deviations within donors.
    n_cells
        Cells per group, held-out ones if ``obs["split"]`` has them.
    n_steps
        Steps of the integral.
    fade
        For an inversion: how far the code of the pixels has faded.
    seed
        Of the cells, of latent and noise.
    batch_size
        Images at a time.
    key_added
        Slot in ``uns``, and first part of the columns in ``var``.
    copy
        Return a copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes

    ``uns[key_added]["table"]`` : DataFrame
        One row per group and gene, the strongest first: ``effect`` (mean change of the feature), ``se``, ``low``, ``high``
        (95 %), ``p`` (t-test; cells of a field of view count as alike, so that ``se``, interval and test are over fields where
        ``obs`` names several; over donors with ``batch_key``, NaN for one) and ``p_adjusted`` (Benjamini and Hochberg, within a group), ``n``
        (cells, or donors), ``n_fields``; with gradients
        ``gradient`` (mean share) and ``gradient_se``.
    ``uns[key_added]["params"]``, ``uns[key_added]["report"]``
        With gradients, ``completeness`` per group: sum of the shares over the change they should add up to.
    ``var[f"{key_added}_{group}"]``, ``_se``
        Effect (with ``method="gradient"``: mean share) of each gene and its standard error; NaN for genes not ranked.

    Raises
    ------
    KeyError
        A gene, feature or column is unknown, or there is no model.
    ValueError
        The feature has no gradient; an option is unknown.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    check_choice("method", method, METHODS)
    if isinstance(perturbation, str):
        check_choice("perturbation", perturbation, PERTURBATIONS)
    else:
        check_range("perturbation", perturbation)
    check_range("n_cells", n_cells, low=2)
    check_range("n_steps", n_steps, low=1)
    image_model = require_model(table, model)
    groupby = groupby or getattr(image_model.registry, "groupby", None) or _keys.CONDITION
    X = get_counts(table, layer)
    check_scale(image_model, X, layer)
    check_counts(X, list(table.var_names))
    measure = Measure(table, feature)
    if len(measure.names) != 1:
        msg = f"feature={measure.names}: rank one feature at a time."
        raise ValueError(msg)
    chosen = resolve_genes(genes, list(table.var_names))
    index = np.arange(table.n_vars) if chosen is None else np.sort(table.var_names.get_indexer(chosen))
    mask = resolve_subset(table, subset)
    labels = check_key(table, "obs", groupby, name="groupby").astype(str).to_numpy()
    groups = [g for g in check_groups(table, groupby) if (mask & (labels == g)).any()]
    drawing = Drawing(seed=seed, fade=fade, batch_size=batch_size)
    donors = None
    if batch_key is not None:
        check_key(table, "obs", batch_key, name="batch_key")
        check_groups(table, batch_key)
        donors = table.obs[batch_key].astype(str).to_numpy()
    fields = fields_of(table, _keys.FOV)
    tables, completeness = [], {}
    for group in groups:
        here = mask & (labels == group)
        options: dict[str, Any] = {"model": image_model, "prefer": "test", "donors": donors}
        cells = pick_cells(table, X, here, n_cells=n_cells, seed=seed, **options)
        of = None if donors is None else donors[cells.index]
        near = fields[cells.index] if fields is not None and donors is None else None
        rows: dict[str, Any] = {"group": group, "gene": table.var_names[index].astype(str)}
        if method != "gradient":
            step = _sd(X, here, seed, donors) if perturbation == "sd" else perturbation
            if isinstance(step, str) and step == "knockout":
                say_floor(image_model, index, np.zeros((1, len(index))), list(table.var_names))
            differences = _differences(cells, image_model, measure, index, step, drawing)
            rows |= _summary(differences, "effect", of, near)
        if method != "difference":
            from ._editing import Differentiable, integrated_gradients, torch_feature

            images = Differentiable(image_model, cells, drawing)
            function = gradient_feature or torch_feature(measure)
            end = _path_end(table, X, cells, toward, labels != group)
            shares, change = integrated_gradients(
                images, function, cells.X, end, n_steps=n_steps, batch_size=batch_size or 32
            )
            total = float(change.mean())
            completeness[_keys.column_name(group)] = float(shares.sum(axis=1).mean() / total) if total else float("nan")
            got = _summary(shares[:, index], "gradient", of, near)
            rows |= {"gradient": got["gradient"], "gradient_se": got["se"]}
            if method == "gradient":
                rows |= {"effect": got["gradient"]} | {
                    k: got[k] for k in ("se", "low", "high", "p", "p_adjusted", "n", "n_fields")
                }
        frame = pd.DataFrame(rows)
        tables.append(frame.iloc[np.argsort(-frame["effect"].abs().fillna(0).to_numpy(), kind="stable")])
        for column in ("effect", "se"):
            values = np.full(table.n_vars, np.nan)
            values[index] = rows[column]
            suffix = "" if column == "effect" else "_se"
            _keys.write_slot(table, "var", f"{key_added}_{_keys.column_name(group)}{suffix}", values)
    ranked = pd.concat(tables, ignore_index=True)
    ranked.index = ranked.index.astype(str)
    params = {
        "feature": measure.names[0],
        "groupby": groupby,
        "method": method,
        "perturbation": perturbation,
        "genes": chosen,
        "toward": toward,
        "layer": layer,
        "batch_key": batch_key,
        "n_cells": n_cells,
        "n_steps": n_steps,
        "fade": fade,
        "seed": seed,
        **model_record(table, image_model),
    }
    _keys.write_params(table, key_added, params, table=ranked, report={"completeness": completeness})
    logger.info("ranked %d genes by %s: uns[%r]", len(index), measure.names[0], key_added)
    return table if copy else None


def require_model(adata: AnnData, model: Any) -> Any:
    """The image model; ``KeyError`` if there is none."""
    found = find_model(adata, model)
    if found is None:
        msg = f"model={model!r}: there is no image model. Train one (sst.tl.train_gan), or pass a model or its folder."
        raise KeyError(msg)
    return found


def _differences(
    cells: Cells,
    model: Any,
    measure: Measure,
    genes: np.ndarray,
    step: str | float | np.ndarray,
    drawing: Drawing,
) -> np.ndarray:
    """Change of the feature for each cell and gene: m x k. Cells that a change leaves as they were are not drawn."""
    m = len(cells.X)
    before = measure(cells.draw(model, cells.X, drawing))[:, 0]
    out = np.zeros((m, len(genes)))
    out[~np.isfinite(before)] = np.nan
    at_once = max(1, 2048 // m)
    bar = tqdm(total=len(genes), desc=f"genes and {measure.names[0]}", disable=not settings.progress, leave=False)
    for low in range(0, len(genes), at_once):
        batch = genes[low : low + at_once]
        old = cells.X[:, batch]
        new = _perturbed(old, step if np.ndim(step) == 0 else np.asarray(step)[batch])
        who, which = np.nonzero(new != old)
        if len(who):
            expression = cells.X[who]
            expression[np.arange(len(who)), batch[which]] = new[who, which]
            after = measure(cells.draw(model, expression, drawing, rows=who))[:, 0]
            out[who, low + which] = after - before[who]
        bar.update(len(batch))
    bar.close()
    return out


def _perturbed(old: np.ndarray, step: Any) -> np.ndarray:
    if isinstance(step, str):
        return old * 2 if step == "double" else np.zeros_like(old)
    return np.maximum(old + step, 0)


def _sd(X: Any, mask: np.ndarray, seed: int, donors: np.ndarray | None) -> np.ndarray:
    """Standard deviation of each gene over some cells, within donors where they are known."""
    index = np.flatnonzero(mask)
    if len(index) > MOST_CELLS:
        index = np.sort(np.random.default_rng(seed).choice(index, MOST_CELLS, replace=False))
    values = take_rows(X, index)
    if donors is not None:
        values = values - pd.DataFrame(values).groupby(donors[index]).transform("mean").to_numpy()
    return values.std(axis=0)


def _path_end(adata: AnnData, X: Any, cells: Cells, toward: str | None, others: np.ndarray) -> np.ndarray:
    if toward is not None:
        return take_rows(check_key(adata, "layers", toward, name="toward"), cells.index)
    index = np.flatnonzero(others)[:MOST_CELLS]
    mean = take_rows(X, index).mean(axis=0) if len(index) else np.zeros(adata.n_vars)
    return np.broadcast_to(mean, cells.X.shape)


def _summary(
    values: np.ndarray, name: str, donors: np.ndarray | None = None, fields: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Mean over cells (donors), its standard error over fields where there are several, interval and test, for each gene."""
    if donors is not None:
        values = pd.DataFrame(values).groupby(donors).mean().to_numpy()  # of the cells without a gap
    there = np.isfinite(values)
    n = there.sum(axis=0)
    mean = np.where(n > 0, np.where(there, values, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
    away = np.where(there, values - mean, 0.0)
    if fields is not None and len(np.unique(fields)) > 1:  # what a field's cells have in common does not average out
        k = pd.DataFrame(there).groupby(fields).any().sum().to_numpy()
        away = pd.DataFrame(away).groupby(fields).sum().to_numpy()
    else:
        k = n
    with np.errstate(invalid="ignore", divide="ignore"):
        se = np.where(k > 1, np.sqrt((away**2).sum(axis=0) * k / (k - 1)) / n, np.nan)
        t = np.where(se > 0, mean / se, np.where(mean == 0, 0.0, np.inf))
    freedom = np.maximum(k - 1, 1)
    p = np.where(k > 1, 2 * stats.t.sf(np.abs(t), freedom), np.nan)
    reach = stats.t.ppf(0.975, freedom) * se
    return {
        name: mean,
        "se": se,
        "low": mean - reach,
        "high": mean + reach,
        "p": p,
        "p_adjusted": stats.false_discovery_control(np.nan_to_num(p, nan=1.0)),
        "n": n,
        "n_fields": k if fields is not None else np.zeros_like(n),
    }
