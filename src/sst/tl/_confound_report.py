"""How much of a difference between groups may be the slide's."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import _keys
from sst._arguments import checked
from sst._settings import logger
from sst._validate import check_groups, check_key, check_range, get_counts, resolve_subset, resolve_table
from sst.editing import Moments, check_counts, resolve_genes, rows_of, take_rows

from ._matched_slides import matched_slides
from ._measuring import channel_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

BACKGROUND = (0.01, 0.05, 0.25, 0.5)  # quantiles of the pixels far from the centre
EXTREMES = (0.0, 0.001, 0.999, 1.0)  # quantiles that intensity limits are made of


@checked
def confound_report(
    adata: AnnData | SpatialData,
    groupby: str = _keys.CONDITION,
    *,
    genes: str | Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    images: str = _keys.CROPS,
    layer: str | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    controls: str = "edit_controls",
    fovs: str = _keys.FOV,
    samples: str = _keys.SAMPLE,
    batch_key: str | None = None,
    n_cells: int = 1000,
    n_folds: int = 5,
    seed: int = 0,
    key_added: str = "confound_report",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Ask how well the group can be told from what has no biology in it.

    Where normal and tumour are two slides, every difference of the slides (stain, exposure, background, depth of sequencing)
    is a difference of the groups. A model may learn it, and an edit may show it. This report says how large it is.

    Parameters
    ----------
    adata
        Paired cells.
    groupby
        Column of ``obs`` with the groups.
    genes
        Genes whose differences are examined (default: all).
    images
        Real crops in ``obsm``; left out if there are none.
    layer
        Counts, ``None`` for ``X``.
    subset
        Cells to use.
    controls
        Slot of :func:`sst.tl.edit_controls`; if it is there, ``effects`` says what remains of the edit's effect.
    fovs
        Column of ``obs`` with the fields of view: a whole field is either trained on or predicted.
    samples
        Column of ``obs`` with the slides (donors). Where every group has several, a whole slide is either trained on or
        predicted: what then tells the groups apart is common to the slides of a group.
    batch_key
        The same, said as elsewhere; a column that is not there is an error.
    n_cells
        Cells per group, drawn at random.
    n_folds
        Folds of the cross-validation.
    seed
        Of the draws and folds.
    key_added
        Slot in ``uns``.
    copy
        Return a copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes ``uns[key_added]``:

    ``prediction`` : DataFrame
        How well a logistic regression tells the group of cells in fields (slides) it has not seen, from ``background`` (quantiles
        1, 5, 25, 50 % of the pixels outside the inscribed circle, all channels and each by itself: where a stain follows
        expression its neighbours' light is biology, a counterstain's should not tell), ``extremes`` (lowest and highest intensities of the
        crop, which intensity limits are made of), ``depth`` (log total counts, log number of genes) and ``all`` of them:
        ``balanced_accuracy`` and ``auc`` (macro, one against rest), their ``_sd`` over folds, ``chance``, ``n_features``,
        ``held_out`` (``"slide"``, ``"field"`` or ``"cell"``).
    ``slides`` : DataFrame
        Where every group has several slides: for each of these quantiles and each pair of groups, the gap between the groups'
        means over slides, the SD of a group's slides, and ``gap_sd``, their ratio: how many slides' differences the groups lie apart.
    ``matched`` : DataFrame
        Where every group has several slides: gaps of depth, background and signal (log mean of the pixels inside the circle) between all slides of the groups,
        and between pairs of slides that are alike in background and depth, or of one donor (``gap``, ``gap_matched`` with ``low`` and ``high``, ``remaining``, ``n_pairs``,
        ``matched_by``). No pairs: nothing of a group's difference can be told from its slides'.
    ``depth`` : DataFrame
        Mean and median total counts and number of genes of each group.
    ``limits`` : DataFrame
        Intensity limits of each group and channel, if :func:`sst.pp.rescale_intensity` has left any.
    ``genes`` : DataFrame
        For each gene and pair of groups: log2 fold change, the same between depth-normalised counts, and ``remaining``, their
        ratio: what depth does not explain.
    ``effects`` : DataFrame
        From the controls: the edit's effect, that of genes matched in expression (and so in depth) in both groups, and
        ``remaining``, the share of the edit's effect that is its own, with intervals.

    Raises
    ------
    KeyError
        A column, gene or slot is unknown.
    ValueError
        Fewer than two groups, or too few cells for the folds.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    check_range("n_cells", n_cells, low=10)
    check_range("n_folds", n_folds, low=2)
    groups = check_groups(table, groupby)
    if len(groups) < 2:
        msg = f"obs[{groupby!r}] has only the group {groups[0]!r}: nothing to confound."
        raise ValueError(msg)
    X = get_counts(table, layer)
    check_counts(X, list(table.var_names))
    mask = resolve_subset(table, subset) & _keys.drawn(table, images)
    labels = table.obs[groupby].astype(str).to_numpy()
    if batch_key is not None:
        check_key(table, "obs", batch_key, name="batch_key")
        samples = batch_key
    index = np.concatenate([_draw(mask & (labels == g), n_cells, seed, g) for g in groups])
    index.sort()
    counts = take_rows(X, index)
    total, detected = counts.sum(axis=1), (counts > 0).sum(axis=1)
    kinds = {"depth": np.column_stack([np.log1p(total), np.log1p(detected)])}
    alone: dict[str, np.ndarray] = {}
    measures = {"depth": np.log1p(total)}
    if images in table.obsm:
        background, extremes, signal = _pixels(table.obsm[images], index)
        kinds = {"background": background, "extremes": extremes, **kinds}
        parts = dict(zip(channel_names(table), np.split(background, table.obsm[images].shape[1], axis=1), strict=True))
        if len(parts) > 1:
            alone = {f"background, {name}": part for name, part in parts.items()}
        measures |= {f"background, {name}": part[:, -1] for name, part in parts.items()}
        measures |= {f"signal, {name}": signal[:, k] for k, name in enumerate(parts)}
    elif images != _keys.CROPS:
        check_key(table, "obsm", images, name="images")
    kinds["all"] = np.concatenate(list(kinds.values()), axis=1)
    units, held_out, slides = _units(table, index, labels[index], groups, fovs, samples)
    prediction: list[dict[str, Any]] = [
        {"features": name} | _predict(values, labels[index], units, n_folds, seed) | {"held_out": held_out}
        for name, values in {**kinds, **alone}.items()
    ]
    for row in prediction:
        if (
            row["features"] in {"background", "extremes", "depth"}
            and row["balanced_accuracy"] > (1 + row["chance"]) / 2
        ):
            logger.warning(
                "%s alone tells the groups of obs[%r] apart with balanced accuracy %.2f (chance %.2f): effects between "
                "them may be the slide's.",
                row["features"],
                groupby,
                row["balanced_accuracy"],
                row["chance"],
            )
    moments = {g: Moments.of(rows_of(X, mask & (labels == g))).mean for g in groups}
    found: dict[str, Any] = {
        "prediction": _frame(prediction),
        "depth": _depth(labels[index], total, detected, groups),
        "genes": _genes(moments, resolve_genes(genes, list(table.var_names)), table.var_names),
    }
    if slides is not None:
        found["slides"] = _between_slides({**kinds, **alone}, labels[index], slides, groups)
        technical = np.concatenate([kinds[k] for k in ("background", "depth") if k in kinds], axis=1)
        donors = table.obs[samples].astype(str).to_numpy()[index]
        found["matched"] = matched_slides(technical, measures, labels[index], donors, groups)
    limits = _limits(table)
    if limits is not None:
        found["limits"] = limits
    if controls in table.uns and "contrasts" in table.uns[controls]:
        found["effects"] = _effects(table.uns[controls])
    params = {
        "groupby": groupby,
        "images": images,
        "layer": layer,
        "fovs": fovs if fovs in table.obs else None,
        "samples": samples if slides is not None else None,
        "n_cells": n_cells,
        "n_folds": n_folds,
        "seed": seed,
    }
    _keys.write_params(table, key_added, params, **found)
    return table if copy else None


def _units(
    table: AnnData, index: np.ndarray, labels: np.ndarray, groups: list[str], fovs: str, samples: str
) -> tuple[np.ndarray | None, str, np.ndarray | None]:
    """What is held out as a whole: each cell's slide where every group has several, else its field of view; and the slides."""
    names = labels
    if samples in table.obs:
        own = table.obs[samples].astype(str).to_numpy(dtype=str)[index]
        names = np.char.add(np.char.add(labels, "|"), own)
        if min(len(np.unique(own[labels == g])) for g in groups) > 1:
            return names, "slide", names
    if fovs not in table.obs:
        return None, "cell", None
    fields = table.obs[fovs].astype(str).to_numpy(dtype=str)[index]
    return np.char.add(np.char.add(names.astype(str), "|"), fields), "field", None


def _between_slides(
    kinds: Mapping[str, np.ndarray], labels: np.ndarray, slides: np.ndarray, groups: list[str]
) -> pd.DataFrame:
    """How far the groups lie apart, in SDs of the slides of a group; the largest of each kind's quantiles."""
    names, code = np.unique(slides, return_inverse=True)
    group = np.array([labels[code == k][0] for k in range(len(names))])
    rows = []
    for kind, values in kinds.items():
        if kind == "all":
            continue
        means = np.stack([values[code == k].mean(axis=0) for k in range(len(names))])  # slides x q
        for a, b in combinations(groups, 2):
            first, second = means[group == a], means[group == b]
            spread = np.sqrt((first.var(axis=0, ddof=1) + second.var(axis=0, ddof=1)) / 2)
            gap = second.mean(axis=0) - first.mean(axis=0)
            ratio = np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)
            k = int(np.argmax(np.abs(ratio)))
            row = {"features": kind, "source": a, "target": b, "gap": float(gap[k]), "slides_sd": float(spread[k])}
            rows.append(row | {"gap_sd": float(ratio[k]), "n_slides": len(first) + len(second)})
    return _frame(rows)


def _draw(mask: np.ndarray, n_cells: int, seed: int, group: str) -> np.ndarray:
    index = np.flatnonzero(mask)
    if len(index) < 2:
        msg = f"group {group!r} has {len(index)} cell{'' if len(index) == 1 else 's'} here: at least 2 are needed."
        raise ValueError(msg)
    return index if len(index) <= n_cells else np.random.default_rng(seed).choice(index, n_cells, replace=False)


def _pixels(images: Any, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantiles of pixels outside the inscribed circle, and of all pixels: n x (quantiles c) each; log mean inside the circle, n x c."""
    h, w = images.shape[-2:]
    y, x = (np.arange(s) - (s - 1) / 2 for s in (h, w))
    outside = np.hypot(y[:, None] / (h / 2), x[None, :] / (w / 2)) > 1
    background: list[np.ndarray] = []
    extremes: list[np.ndarray] = []
    signal: list[np.ndarray] = []
    for low in range(0, len(index), 256):
        block = np.asarray(images[index[low : low + 256]])  # b x c x h x w
        far, flat = block[..., outside], block.reshape(*block.shape[:2], -1)
        for out, pixels, levels in ((background, far, BACKGROUND), (extremes, flat, EXTREMES)):
            quantiles = np.quantile(pixels, levels, axis=-1)  # q x b x c
            out.append(np.log1p(np.moveaxis(quantiles, 0, -1).reshape(len(block), -1)))
        signal.append(np.log1p(block[..., ~outside].mean(axis=-1)))
    return np.concatenate(background), np.concatenate(extremes), np.concatenate(signal)


def _predict(
    values: np.ndarray, labels: np.ndarray, fields: np.ndarray | None, n_folds: int, seed: int
) -> dict[str, float | int]:
    """Balanced accuracy and area under the curve of a cross-validated logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    groups = np.unique(labels)
    fewest = min(int((labels == g).sum()) for g in groups)
    if fields is not None:
        fewest = min(len(np.unique(fields[labels == g])) for g in groups)
        if fewest < 2:
            fields = None
            fewest = min(int((labels == g).sum()) for g in groups)
    folds = min(n_folds, fewest)
    kind = StratifiedKFold if fields is None else StratifiedGroupKFold
    splits = kind(folds, shuffle=True, random_state=seed).split(values, labels, fields)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced"))
    accuracy, areas = [], []
    for train, test in splits:
        if set(labels[train]) != set(groups) or set(labels[test]) != set(groups):
            continue
        model.fit(values[train], labels[train])
        accuracy.append(balanced_accuracy_score(labels[test], model.predict(values[test])))
        scores = model.predict_proba(values[test])
        area = (
            roc_auc_score(labels[test], scores[:, 1])
            if len(groups) == 2
            else roc_auc_score(labels[test], scores, multi_class="ovr", average="macro", labels=groups)
        )
        areas.append(area)
    nan = float("nan")
    return {
        "balanced_accuracy": float(np.mean(accuracy)) if accuracy else nan,
        "balanced_accuracy_sd": float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else nan,
        "auc": float(np.mean(areas)) if areas else nan,
        "auc_sd": float(np.std(areas, ddof=1)) if len(areas) > 1 else nan,
        "chance": 1 / len(groups),
        "n_features": values.shape[1],
        "n_cells": len(labels),
        "n_folds": len(accuracy),
    }


def _depth(labels: np.ndarray, total: np.ndarray, detected: np.ndarray, groups: list[str]) -> pd.DataFrame:
    rows = []
    for group in groups:
        here = labels == group
        row: dict[str, Any] = {"group": group}
        for name, values in (("total_counts", total[here]), ("n_genes", detected[here])):
            row |= {f"{name}_mean": float(values.mean()), f"{name}_median": float(np.median(values))}
        rows.append(row | {"n_cells": int(here.sum())})
    return _frame(rows)


def _genes(means: dict[str, np.ndarray], chosen: list[str] | None, var_names: pd.Index) -> pd.DataFrame:
    """Fold changes of each pair of groups, raw and at equal depth."""
    index = np.arange(len(var_names)) if chosen is None else var_names.get_indexer(chosen)
    names = list(means)
    tables = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            depth = np.log2(means[b].sum() / means[a].sum()) if means[a].sum() and means[b].sum() else np.nan
            raw = np.log2((means[b][index] + 1e-3) / (means[a][index] + 1e-3))
            with np.errstate(divide="ignore", invalid="ignore"):
                remaining = np.where(raw != 0, (raw - depth) / raw, np.nan)
            columns = {"gene": var_names[index].astype(str), "source": a, "target": b, "log2_fold": raw}
            tables.append(pd.DataFrame(columns | {"log2_fold_at_equal_depth": raw - depth, "remaining": remaining}))
    table = pd.concat(tables, ignore_index=True)
    table.index = table.index.astype(str)
    return table


def _limits(adata: AnnData) -> pd.DataFrame | None:
    limits = adata.uns.get(_keys.CROPS, {}).get("limits")
    if not limits or "low" not in limits:
        return None
    channels = channel_names(adata)
    column = str(limits.get("groupby", ""))
    groups = map(str, adata.obs[column].unique()) if column in adata.obs else ()
    names = {_keys.column_name(g): g for g in groups}  # limits are kept under names that files can store
    rows = [
        {
            "group": names.get(str(group), str(group)),
            "channel": channel,
            "low": float(limits["low"][group][k]),
            "high": float(high[k]),
        }
        for group, high in limits["high"].items()
        for k, channel in enumerate(channels)
    ]
    return _frame(rows)


def _effects(controls: Mapping[str, Any]) -> pd.DataFrame:
    """What the controls leave of the edit's effect."""
    effects, contrasts = controls["effects"], controls["contrasts"]
    keys = ["direction", "feature"]
    edit = effects[effects["condition"] == "edit"].set_index(keys)["mean"]
    rows = []
    for _, row in contrasts.iterrows():
        whole = float(edit[row["direction"], row["feature"]])
        scale = whole if whole else float("nan")
        ends = sorted((float(row["low"]) / scale, float(row["high"]) / scale))
        rows.append(
            {
                "direction": row["direction"],
                "feature": row["feature"],
                "control": row["condition"],
                "effect": whole,
                "control_effect": whole - float(row["mean"]),
                "remaining": float(row["remaining"]),
                "remaining_low": ends[0],
                "remaining_high": ends[1],
            }
        )
    return _frame(rows)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, index=[str(k) for k in range(len(rows))])
