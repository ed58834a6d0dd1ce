"""Features of nuclei and markers before and after an edit, against real cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from sst import _keys
from sst._arguments import checked
from sst._validate import check_groups, resolve_subset

from ._drawing import (
    bracket,
    default_features,
    edit_target,
    feature_column,
    feature_label,
    finish,
    group_colors,
    grouping,
    key_label,
    lighten,
    make_axes,
    measured_keys,
    sample,
    stars,
    style,
    violin,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes


@checked
def morphology(
    adata: AnnData,
    features: str | Sequence[str] | None = None,
    *,
    keys: Sequence[str] | None = None,
    groupby: str | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    ncols: int = 3,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    return_fig: bool = False,
) -> Any:
    """Violins of cell features in real, generated and edited images (the paper's figure q.3).

    One panel a feature; in it, for each group of cells, its real images, those generated from its unedited genes, and
    the edits, whose colour is the group they go toward. A dashed line is the median of that group's real cells: where
    an edit should lead. Stars: two-sided Wilcoxon signed-rank test of each cell before (generated, or real where nothing was
    generated) and after the edit. Cells of a
    field of view are not independent: stars describe the violins; :func:`sst.tl.evaluate` has intervals and tests over fields.

    Parameters
    ----------
    adata
        After :func:`sst.tl.morphology` of each slot.
    features
        Measures without the slot's name (``"nucleus_area"``, ``"DAPI_nucleus_mean"``, ...); ``None``: nuclear area, marker
        in the window, stain in the nucleus.
    keys
        Slots; ``None``: all that were measured.
    groupby
        Column of the groups; ``None``: the one used before, else ``"condition"``.
    subset
        Draw these cells only: mask, query, or ``{key: [categories]}``.
    ncols
        Panels in a row.
    ax
        Axes to draw on, one a feature.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.
    """
    keys = measured_keys(adata) if keys is None else list(keys)
    if not keys:
        msg = "nothing was measured on this object: run sst.tl.morphology(adata, key=...) first."
        raise KeyError(msg)
    if features is None:
        features = default_features(adata, keys[0])
    features = [features] if isinstance(features, str) else list(features)
    if not features:
        msg = "features is empty: name at least one."
        raise ValueError(msg)
    groupby = grouping(adata, groupby)
    groups = check_groups(adata, groupby)
    mask = resolve_subset(adata, subset)
    labels = adata.obs[groupby].astype(str).to_numpy()
    rows = {g: sample(mask & (labels == g)) for g in groups}
    colors = group_colors(adata, groupby)
    columns = [(g, k) for g in groups for k in keys if len(rows[g]) and _shown(adata, k, g)]
    with style():
        width = 0.9 + 0.42 * len(columns)
        figure, axes = make_axes(ax, len(features), ncols=ncols, panel=(max(width, 2.0), 2.9))
        for feature, axis in zip(features, axes, strict=True):
            values = {(g, k): feature_column(adata, k, feature)[rows[g]] for g, k in columns}
            _panel(axis, adata, values, groups, keys, colors)
            axis.set_ylabel(feature_label(adata, keys[0], feature))
    return finish(figure, axes, return_fig=return_fig)


def _shown(adata: AnnData, key: str, group: str) -> bool:
    """An edit in one direction leaves the other groups as generated: those are not drawn again."""
    entry = _keys.entry(adata, key)
    is_edit = key not in {_keys.CROPS, _keys.GENERATED} and _keys.PARAMS in entry
    params = entry.get(_keys.PARAMS, {}) if is_edit else {}
    untouched = (params.get("source") and str(params["source"]) != group) or str(params.get("target", "")) == group
    return not (is_edit and untouched)


def _panel(
    axis: Axes,
    adata: AnnData,
    values: dict[tuple[str, str], np.ndarray],
    groups: Sequence[str],
    keys: Sequence[str],
    colors: dict[str, str],
) -> None:
    x, ticks, places = 0.0, [], []
    finite = np.concatenate([v[np.isfinite(v)] for v in values.values()]) if values else np.zeros(0)
    if not finite.size:
        axis.text(0.5, 0.5, "no nucleus found", ha="center", va="center", transform=axis.transAxes)
        return
    low, high = np.quantile(finite, [0.001, 0.999])
    span = (high - low) or 1.0
    level: dict[str, float] = {}
    brackets = 0
    for group in groups:
        at: dict[str, float] = {}
        for key in (k for k in keys if (group, k) in values):
            target = edit_target(adata, key, group, groups)
            color = colors.get(target or group, "#7F7F7F")
            tint = {_keys.CROPS: 0.0, _keys.GENERATED: 0.45}.get(key, 0.3)
            shown = values[group, key]
            violin(axis, [np.clip(shown, low, high)], [x], [lighten(color, tint)])
            if target and (target, _keys.CROPS) in values:
                goal = float(np.nanmedian(values[target, _keys.CROPS]))
                axis.hlines(
                    goal,
                    x - 0.45,
                    x + 0.45,
                    colors=colors.get(target, "black"),
                    linestyles=(0, (3, 1.5)),
                    linewidth=1.2,
                )
            at[key] = x
            ticks.append(x)
            places.append(key_label(key, adata) + (f" → {target}" if target else ""))
            x += 1
        before = next((k for k in (_keys.GENERATED, _keys.CROPS) if k in at), None)
        for key in at:
            if key in {_keys.CROPS, _keys.GENERATED} or before is None:
                continue
            a, b = values[group, before], values[group, key]
            both = np.isfinite(a) & np.isfinite(b)
            if both.sum() < 2:
                continue
            p = float(stats.wilcoxon(a[both], b[both]).pvalue) if (a[both] != b[both]).any() else 1.0
            step = level.setdefault(group, 0.0)
            bracket(axis, at[before], at[key], high + (0.07 + 0.13 * step) * span, stars(p), height=0.02 * span)
            level[group] = step + 1
            brackets = max(brackets, int(step) + 1)
        if at:
            axis.text(
                (min(at.values()) + max(at.values())) / 2,
                1.0,
                group,
                color=colors.get(group, "black"),
                ha="center",
                va="bottom",
                weight="bold",
                transform=axis.get_xaxis_transform(),
            )
        x += 0.7
    axis.set_ylim(low - 0.05 * span, high + (0.1 + 0.14 * brackets) * span)
    axis.set_xticks(ticks, places, rotation=35, ha="right", rotation_mode="anchor")
