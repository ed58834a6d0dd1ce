"""The effect of an edit, compared with what it should be compared with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst import _keys
from sst._settings import logger, settings
from sst._validate import check_key, check_range, resolve_table
from sst.editing import (
    Moments,
    Operator,
    bootstrap_mean,
    check_counts,
    get_operator,
    halves,
    matched_gene_sets,
    resolve_genes,
    rows_of,
    shuffled,
    take_rows,
)

from ._edit import _record_method, _record_value, _recordable, fit_directions, operator_value
from ._editing import (
    Cells,
    Direction,
    Features,
    Measure,
    edit_rows,
    find_model,
    model_record,
    pick_cells,
    plan_directions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

EXPRESSION_FEATURES = ("total_counts", "toward_target")


def edit_controls(
    adata: AnnData | SpatialData,
    genes: str | Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    groupby: str | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
    method: str | Operator = "scm",
    top_k: int | None = 1,
    strength: float = 1.0,
    clip: bool = True,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    layer: str | None = None,
    model: Any = "last",
    features: Features = None,
    n_random: int = 5,
    n_shuffles: int = 3,
    n_cells: int = 256,
    fovs: str = _keys.FOV,
    value: float | Mapping[str, float] | str | None = None,
    fit_on: str = "train",
    fit_subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    fade: float | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    batch_size: int | None = None,
    key_added: str = "edit_controls",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Measure what an edit does to the cells' features, and what edits do that should do less.

    The effect on a cell is a feature of its image after minus before; latent and noise are the same. The controls are

    ``random genes``
        As many genes, each replaced by one that is expressed alike in both groups (so that the edit moves it as far).
        Not for an edit of all genes.
    ``shuffled labels``
        The groups' labels dealt out at random before fitting.
    ``strength 0``
        No edit: 0 for a GAN; for an inversion what the fading of the pixels' code does alone.
    ``half of the source``
        Toward a held-out half of the source group: real against real.

    Parameters
    ----------
    adata
        Paired cells.
    genes, groupby, source, target, method, top_k, strength, clip, subset, layer, model, value, fit_on, fit_subset, fade
        The edit, as in :func:`sst.tl.edit`.
    features
        Columns of :func:`sst.metrics.nucleus_features`, a function of images (n x c x h x w uint8 -> n), ``{name: function}``,
        or ``None`` for the nucleus' area and each channel's mean. Without a model, functions of expression (n x p), or
        ``None`` for the total counts and the way gone toward the target (0 source mean, 1 target mean, of log(1 + counts)).
    n_random, n_shuffles
        How many random sets and shuffles.
    n_cells
        Cells of each direction that are measured, drawn at random; held-out ones if ``obs["split"]`` has them.
    fovs
        Column of ``obs`` with the fields of view (with the groups' own numbering: fields of different groups are kept apart).
    n_resamples
        Resamples of each interval.
    seed
        Of all random choices, and of latent and noise.
    batch_size
        Cells per batch when images are made.
    key_added
        Slot in ``uns``.
    copy
        Return a copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes ``uns[key_added]``: ``params``;

    ``effects`` : DataFrame
        One row per direction, condition and feature: ``mean`` effect, ``low``, ``high`` (95 %, resampling cells),
        ``low_fov``, ``high_fov`` (resampling whole fields), ``n`` cells, ``sd_repeats`` (between random sets or shuffles).
    ``contrasts`` : DataFrame
        The same for the edit minus each control, cell by cell, and ``remaining``: its share of the edit's effect.

    Raises
    ------
    KeyError, ValueError
        As :func:`sst.tl.edit`; a feature is not known.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    check_range("n_random", n_random, low=0)
    check_range("n_shuffles", n_shuffles, low=0)
    check_range("n_cells", n_cells, low=1)
    image_model = find_model(table, model)
    if groupby is None and image_model is not None:
        groupby = getattr(image_model.registry, "groupby", None) or None
    X = table.X if layer is None else check_key(table, "layers", layer, name="layer")
    check_counts(X, list(table.var_names))
    chosen = resolve_genes(genes, list(table.var_names))
    index = None if chosen is None else np.sort(table.var_names.get_indexer(chosen))
    operator = get_operator(method, top_k=top_k, value=operator_value(table, method, value))
    directions = plan_directions(
        table,
        groupby,
        source=source,
        target=target,
        method=method,
        subset=subset,
        fit_on=fit_on,
        fit_subset=fit_subset,
    )
    clusters = table.obs[fovs].astype(str).to_numpy() if fovs in table.obs else None
    study = _Study(X, operator, index, chosen, table, strength=strength, clip=clip, clusters=clusters, seed=seed)
    effects: list[dict[str, Any]] = []
    contrasts: list[dict[str, Any]] = []
    for direction in directions:
        cells = pick_cells(table, X, direction.cells, n_cells=n_cells, seed=seed, model=image_model, prefer="test")
        if image_model is None:
            names, look = _expression_features(X, direction, features)
        else:
            measure = Measure(table, features)
            names, look = measure.names, _image_features(cells, image_model, measure, seed, batch_size)
        conditions = study.conditions(direction, cells, n_random=n_random, n_shuffles=n_shuffles)
        before = look(cells.X, 0.0)
        found: dict[str, list[np.ndarray]] = {}
        bar = tqdm(conditions, desc=f"controls of {direction.name}", disable=not settings.progress, leave=False)
        for condition, edited in bar:
            found.setdefault(condition, []).append(look(edited, 1.0 if fade is None else fade) - before)
        own = None if clusters is None else clusters[cells.index]
        options: dict[str, Any] = {"clusters": own, "n_resamples": n_resamples, "seed": seed}
        for condition, repeats in found.items():
            effect = np.mean(repeats, axis=0)  # m x f
            for k, feature in enumerate(names):
                start = {"direction": direction.name, "condition": condition, "feature": feature}
                spread = np.std([np.nanmean(r[:, k]) for r in repeats], ddof=1) if len(repeats) > 1 else np.nan
                effects.append(start | _interval(effect[:, k], **options) | {"sd_repeats": float(spread)})
                if condition != "edit":
                    whole = found["edit"][0][:, k]
                    row = _interval(whole - effect[:, k], **options)
                    scale = float(np.nanmean(whole))
                    contrasts.append(start | row | {"remaining": row["mean"] / scale if scale else float("nan")})
    params = {
        "genes": chosen,
        "groupby": groupby,
        "source": source,
        "target": target,
        "top_k": top_k,
        "strength": float(strength),
        "clip": clip,
        "subset": _recordable(subset),
        "layer": layer,
        "fit_on": fit_on,
        "fit_subset": _recordable(fit_subset),
        "n_random": n_random,
        "n_shuffles": n_shuffles,
        "n_cells": n_cells,
        "fade": fade,
        "n_resamples": n_resamples,
        "seed": seed,
        **_record_method(method),
        **_record_value(value),
        **model_record(table, image_model),
    }
    _keys.write_params(table, key_added, params, effects=_frame(effects), contrasts=_frame(contrasts))
    logger.info("measured %d conditions of an edit: uns[%r]", len({r["condition"] for r in effects}), key_added)
    return table if copy else None


class _Study:
    """Edits the same cells in all conditions."""

    def __init__(
        self,
        X: Any,
        operator: Operator,
        index: np.ndarray | None,
        chosen: list[str] | None,
        adata: AnnData,
        *,
        strength: float,
        clip: bool,
        clusters: np.ndarray | None,
        seed: int,
    ) -> None:
        self.X, self.operator, self.index, self.chosen = X, operator, index, chosen
        self.var_names = list(adata.var_names)
        self.strength, self.clip, self.clusters, self.seed = strength, clip, clusters, seed

    def conditions(
        self, direction: Direction, cells: Cells, *, n_random: int, n_shuffles: int
    ) -> list[tuple[str, np.ndarray]]:
        """Name of each condition and the cells' expression under it."""
        fitted = self._fit(direction)
        out = [("edit", self._edit(fitted, cells, self.index)), ("strength 0", cells.X)]
        out += [("random genes", self._edit(fitted, cells, genes)) for genes in self._random(direction, n_random)]
        if direction.target is None:
            return out
        for repeat in range(n_shuffles):
            a, b = shuffled(direction.fit_source, direction.fit_target, seed=self.seed + repeat)
            refit = self._fit(replace(direction, fit_source=a, fit_target=b))
            out.append(("shuffled labels", self._edit(refit, cells, self.index)))
        a, b = halves(direction.fit_source, clusters=self.clusters, seed=self.seed)
        refit = self._fit(replace(direction, fit_source=a, fit_target=b))
        out.append(("half of the source", self._edit(refit, cells, self.index)))
        return out

    def _random(self, direction: Direction, n_sets: int) -> list[np.ndarray]:
        if self.index is None or n_sets == 0:
            return []
        masks = [direction.fit_source] + ([direction.fit_target] if direction.target is not None else [])
        means = np.array([Moments.of(rows_of(self.X, mask)).mean for mask in masks])
        return matched_gene_sets(means, self.index, n_sets=n_sets, seed=self.seed)

    def _fit(self, direction: Direction) -> Any:
        fitted, _ = fit_directions(
            self.X, self.operator, [direction], genes=self.index, named=False, var_names=self.var_names
        )
        return fitted[0]

    def _edit(self, fitted: Any, cells: Cells, genes: np.ndarray | None) -> np.ndarray:
        return edit_rows(fitted, self.X, cells.index, genes=genes, strength=self.strength, clip=self.clip)


def _image_features(
    cells: Cells, model: Any, measure: Measure, seed: int, batch_size: int | None
) -> Callable[[np.ndarray, float], np.ndarray]:
    def look(X: np.ndarray, fade: float) -> np.ndarray:
        return measure(cells.draw(model, X, seed=seed, fade=fade, batch_size=batch_size))

    return look


def _expression_features(
    X: Any, direction: Direction, features: Any
) -> tuple[list[str], Callable[[np.ndarray, float], np.ndarray]]:
    if features is not None:
        named = features if hasattr(features, "items") else {getattr(features, "__name__", "feature"): features}
        if not all(callable(f) for f in named.values()):
            msg = f"features={features!r}: without a model, features are functions of expression (n x p -> n)."
            raise TypeError(msg)
        return list(named), lambda values, _: np.column_stack([np.asarray(f(values), float) for f in named.values()])
    if direction.target is None:
        return ["total_counts"], lambda values, _: values.sum(axis=1, keepdims=True)
    ends = [
        np.log1p(take_rows(X, np.flatnonzero(mask)[:20_000])).mean(axis=0)
        for mask in (direction.fit_source, direction.fit_target)
    ]
    way = ends[1] - ends[0]
    scale = way @ way

    def look(values: np.ndarray, _: float) -> np.ndarray:
        toward = (np.log1p(values) - ends[0]) @ way / (scale or 1.0)
        return np.column_stack([values.sum(axis=1), toward])

    return list(EXPRESSION_FEATURES), look


def _interval(values: np.ndarray, **options: Any) -> dict[str, Any]:
    got = bootstrap_mean(values, **options)
    return {
        "mean": got.mean,
        "low": got.low,
        "high": got.high,
        "low_fov": got.low_clusters,
        "high_fov": got.high_clusters,
        "n": got.n,
    }


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, index=[str(k) for k in range(len(rows))])
