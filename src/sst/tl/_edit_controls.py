"""The effect of an edit, compared with what it should be compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst import _keys
from sst._arguments import checked
from sst._settings import logger, settings
from sst._validate import check_range, resolve_table
from sst.editing import Moments, bootstrap_mean, halves, matched_gene_sets, rows_of, shuffled, take_rows
from sst.metrics import over_donors

from ._editing import (
    Cells,
    Direction,
    Drawing,
    Edit,
    EditRequest,
    Features,
    Measure,
    check_scale,
    find_model,
    model_record,
    pick_cells,
)
from ._measuring import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from sst.editing import Operator

EXPRESSION_FEATURES = ("total_counts", "toward_target")


@checked
def edit_controls(
    adata: AnnData | SpatialData,
    genes: str | Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    groupby: str | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
    method: str | Operator = "ot",
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
    batch_key: str | None = None,
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
        The groups' labels dealt out at random before fitting (with ``batch_key``: to whole donors, so that what sets donors apart anyhow is in it).
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
        Column of ``obs`` with the fields of view, which slides may number alike. ``"donor"`` or ``"sample"``: intervals over donors or
        slides instead, of which each group should have several.
    batch_key
        Column of ``obs`` with the donors (or slides): the edit is learnt donor by donor as in :func:`sst.tl.edit`, as many cells of each are
        measured, and effects have intervals over donors.
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
        ``low_fov``, ``high_fov`` (resampling whole fields), ``n`` cells, ``sd_repeats`` (between random sets or shuffles); with ``batch_key``
        ``mean_donors``, ``low_donors``, ``high_donors``, ``p_donors``, ``n_donors`` (:func:`sst.metrics.over_donors`).
    ``contrasts`` : DataFrame
        The same for the edit minus each control, cell by cell, and ``remaining``: its share of the edit's effect.
    ``donors`` : DataFrame
        With ``batch_key``: each donor's effect (``effect``, ``n``), one row a direction, condition, feature and donor.

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
    request = EditRequest(
        genes=genes,
        groupby=groupby,
        source=source,
        target=target,
        method=method,
        top_k=top_k,
        strength=strength,
        clip=clip,
        subset=subset,
        layer=layer,
        value=value,
        fit_on=fit_on,
        fit_subset=fit_subset,
        batch_key=batch_key,
    ).with_model(image_model)
    drawing = Drawing(seed=seed, fade=1.0 if fade is None else fade, batch_size=batch_size)
    edit = request.resolve(table)
    if image_model is not None:
        check_scale(image_model, edit.X, layer)
    clusters = fields_of(table, fovs)
    donors = None if batch_key is None else table.obs[batch_key].astype(str).to_numpy()
    study = _Study(edit, clusters, donors, seed=seed, n_random=n_random, n_shuffles=n_shuffles, n_resamples=n_resamples)
    effects: list[dict[str, Any]] = []
    contrasts: list[dict[str, Any]] = []
    each: list[dict[str, Any]] = []
    for direction in edit.directions:
        options: dict[str, Any] = {"model": image_model, "prefer": "test", "donors": donors}
        cells = pick_cells(table, edit.X, direction.cells, n_cells=n_cells, seed=seed, **options)
        if image_model is None:
            names, look = _expression_features(edit.X, direction, features)
        else:
            measure = Measure(table, features)
            names, look = measure.names, _image_features(cells, image_model, measure, drawing)
        found = study.effects(direction, cells, look)
        for rows, of in ((effects, study.summary), (contrasts, study.contrasts), (each, study.each)):
            rows += [{"direction": direction.name} | row for row in of(found, names, cells)]
    params = edit.request.to_params() | drawing.to_params() | {"fade": fade}
    params |= {"n_random": n_random, "n_shuffles": n_shuffles, "n_cells": n_cells, "n_resamples": n_resamples}
    params |= model_record(table, image_model)
    _keys.write_params(table, key_added, params, effects=_frame(effects), contrasts=_frame(contrasts))
    if donors is not None:
        _keys.write_params(table, key_added, params, donors=_frame(each))
    logger.info("measured %d conditions of an edit: uns[%r]", len({r["condition"] for r in effects}), key_added)
    return table if copy else None


@dataclass(frozen=True)
class _Study:
    """Edits the same cells in all conditions, and sums up what that did."""

    edit: Edit
    clusters: np.ndarray | None
    donors: np.ndarray | None
    seed: int
    n_random: int
    n_shuffles: int
    n_resamples: int

    def effects(
        self, direction: Direction, cells: Cells, look: Callable[[np.ndarray, float], np.ndarray]
    ) -> dict[str, list[np.ndarray]]:
        """Change of each cell's features (m x f) under each condition and repeat."""
        before = look(cells.X, 0.0)
        found: dict[str, list[np.ndarray]] = {}
        name = f"controls of {direction.name}"
        for condition, edited in tqdm(
            self._conditions(direction, cells), desc=name, disable=not settings.progress, leave=False
        ):
            found.setdefault(condition, []).append(look(edited, 1.0) - before)
        return found

    def _conditions(self, direction: Direction, cells: Cells) -> list[tuple[str, np.ndarray]]:
        """Name of each condition and the cells' expression under it."""
        options = self.edit.options
        fitted = self._fit(direction)
        out = [("edit", options.rows(self.edit.X, fitted, cells.index)), ("strength 0", cells.X)]
        for genes in self._random(direction):
            edited = replace(options, genes=genes).rows(self.edit.X, fitted, cells.index)
            out.append(("random genes", edited))
        if direction.target is None:
            return out
        for name, (a, b) in self._other_groups(direction):
            refit = self._fit(replace(direction, fit_source=a, fit_target=b))
            out.append((name, options.rows(self.edit.X, refit, cells.index)))
        return out

    def _other_groups(self, direction: Direction) -> list[tuple[str, tuple[np.ndarray, np.ndarray]]]:
        """Pairs of groups to learn from in place of the edit's."""
        a, b = direction.fit_source, direction.fit_target
        deal = shuffled if self.donors is None else self._deal_donors
        dealt = [("shuffled labels", deal(a, b, seed=self.seed + k)) for k in range(self.n_shuffles)]
        whole = self.clusters if self.donors is None else self.donors
        return [*dealt, ("half of the source", halves(a, clusters=whole, seed=self.seed))]

    def _deal_donors(self, a: np.ndarray, b: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Two groups of whole donors, drawn from both; cells, where there are too few donors to be dealt anew."""
        donors: Any = self.donors
        first, second = np.unique(donors[a]), np.unique(donors[b])
        if min(len(first), len(second)) < 2 or len(np.intersect1d(first, second)):
            return shuffled(a, b, seed=seed)
        rng = np.random.default_rng(seed)
        swapped = int(rng.integers(1, min(len(first), len(second))))  # so many change sides: some, not all
        away, come = rng.choice(first, swapped, replace=False), rng.choice(second, swapped, replace=False)
        mine = (a & ~np.isin(donors, away)) | (b & np.isin(donors, come))
        return mine, (a | b) & ~mine

    def _random(self, direction: Direction) -> list[np.ndarray]:
        if self.edit.options.genes is None or self.n_random == 0:
            return []
        masks = [direction.fit_source] + ([direction.fit_target] if direction.target is not None else [])
        means = np.array([Moments.of(rows_of(self.edit.X, mask)).mean for mask in masks])
        return matched_gene_sets(means, np.asarray(self.edit.options.genes), n_sets=self.n_random, seed=self.seed)

    def _fit(self, direction: Direction) -> Any:
        return self.edit.fit([direction])[0][0]

    def summary(self, found: dict[str, list[np.ndarray]], names: Sequence[str], cells: Cells) -> list[dict[str, Any]]:
        """Mean effect of each condition on each feature, with intervals."""
        rows = []
        for condition, repeats in found.items():
            effect = np.mean(repeats, axis=0)
            for k, feature in enumerate(names):
                spread = np.std([np.nanmean(r[:, k]) for r in repeats], ddof=1) if len(repeats) > 1 else np.nan
                row = {"condition": condition, "feature": feature} | self._interval(effect[:, k], cells)
                rows.append(row | {"sd_repeats": float(spread)})
        return rows

    def contrasts(self, found: dict[str, list[np.ndarray]], names: Sequence[str], cells: Cells) -> list[dict[str, Any]]:
        """The edit minus each control, cell by cell."""
        rows = []
        for condition, repeats in found.items():
            if condition == "edit":
                continue
            effect = np.mean(repeats, axis=0)
            for k, feature in enumerate(names):
                whole = found["edit"][0][:, k]
                row = {"condition": condition, "feature": feature} | self._interval(whole - effect[:, k], cells)
                scale = float(np.nanmean(whole))
                rows.append(row | {"remaining": row["mean"] / scale if scale else float("nan")})
        return rows

    def each(self, found: dict[str, list[np.ndarray]], names: Sequence[str], cells: Cells) -> list[dict[str, Any]]:
        """Effect of each condition on each donor."""
        if self.donors is None:
            return []
        mine, rows = self.donors[cells.index], []
        size = dict(zip(*np.unique(mine, return_counts=True), strict=True))
        for condition, repeats in found.items():
            effect = np.mean(repeats, axis=0)
            for k, feature in enumerate(names):
                rows += [
                    {"condition": condition, "feature": feature, "donor": d, "effect": mean, "n": int(size[d])}
                    for d, mean in over_donors(effect[:, k], mine).each.items()
                ]
        return rows

    def _interval(self, values: np.ndarray, cells: Cells) -> dict[str, Any]:
        own = None if self.clusters is None else self.clusters[cells.index]
        got = bootstrap_mean(values, own, n_resamples=self.n_resamples, seed=self.seed)
        row = {
            "mean": got.mean,
            "low": got.low,
            "high": got.high,
            "low_fov": got.low_clusters,
            "high_fov": got.high_clusters,
            "n": got.n,
        }
        if self.donors is not None:
            across = over_donors(values, self.donors[cells.index])._asdict()
            row |= {f"{name}_donors": across[name] for name in ("mean", "low", "high", "p")}
            row["n_donors"] = across["n_donors"]
        return row


def _image_features(
    cells: Cells, model: Any, measure: Measure, drawing: Drawing
) -> Callable[[np.ndarray, float], np.ndarray]:
    def look(X: np.ndarray, strength: float) -> np.ndarray:
        return measure(cells.draw(model, X, replace(drawing, fade=strength * (drawing.fade or 0.0))))

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


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, index=[str(k) for k in range(len(rows))])
