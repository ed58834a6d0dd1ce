"""The evaluation's tables as figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_choice, check_entry, describe_options

from ._distances import METRIC_LABELS
from ._drawing import GREY, feature_label, finish, group_colors, lighten, make_axes, style

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

EDITS = {
    "none": "unedited",
    "chosen": "chosen\ngenes",
    "all": "all\ngenes",
    "random": "random\ngenes",
    "fade": "fade\nonly",
}
_MARKS = {"chosen": ("#D55E00", "o"), "all": ("#0072B2", "s"), "random": (GREY, "D"), "fade": (GREY, "v")}


@checked
def evaluation(
    adata: AnnData,
    what: str = "distances",
    *,
    key: str = "evaluation",
    metric: str = "frechet",
    features: Sequence[str] | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw what :func:`sst.tl.evaluate` found: distances in every condition, or the share of the gap that edits close.

    ``"distances"``: one panel a kind of image, choice of cells and group; bars are the distances to each group's real cells
    unedited, after each edit and in the controls (hatched), with standard deviations; dotted lines are the real-to-real
    floors. ``"gap"``: for each cell feature the change that an edit makes, relative to the gap between the groups' real
    cells, with its confidence interval: 0 changes nothing, 1 closes the gap. With ``batch_key=`` pale points are the donors'.

    Parameters
    ----------
    adata
        After :func:`sst.tl.evaluate`.
    what
        ``"distances"`` or ``"gap"``.
    key
        Slot in ``uns``.
    metric
        For ``"distances"``.
    features
        For ``"gap"``; ``None``: nuclear area, chromatin contrast, each channel's means.
    ax
        Axes to draw on, one a panel.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.
    """
    check_choice("what", what, ["distances", "gap"])
    entry = check_entry(adata, key, "distances", _keys.PARAMS, by="sst.tl.evaluate")
    if what == "distances":
        return _distances(adata, entry, metric, ax, return_fig=return_fig)
    return _gaps(adata, entry, features, ax, return_fig=return_fig)


def _panels(table: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(zip(*(table[c].astype(str) for c in columns), strict=True)))


def _select(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column].astype(str) == value]
    return table


def _distances(adata: AnnData, entry: Any, metric: str, ax: Any, *, return_fig: bool) -> Any:
    table = entry["distances"]
    check_choice("metric", metric, sorted(table["metric"].astype(str).unique()))
    table = _select(table, metric=metric)
    panels = _panels(table, ["images", "cells", "source"])
    groups = list(dict.fromkeys(table["source"].astype(str)))
    colors = group_colors(adata, str(entry[_keys.PARAMS]["groupby"]))
    with style():
        figure, axes = make_axes(ax, len(panels), ncols=len(groups), panel=(3.1, 2.3))
        for k, ((images, cells, source), axis) in enumerate(zip(panels, axes, strict=True)):
            rows = _select(table, images=images, cells=cells, source=source)
            _bars(axis, rows, groups, colors)
            where = "" if cells == "all" else f", {cells}"
            axis.set_title(f"{images}: {source}{where}", color=colors.get(source, "black"))
            if k % len(groups) == 0:
                axis.set_ylabel(METRIC_LABELS.get(metric, metric))
        handles, labels = axes[0].get_legend_handles_labels()
        if ax is None:
            figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
            figure.supxlabel(f"features: {table['features'].iloc[0]}", fontsize=6.5, color="#666666")
        else:
            axes[0].legend(handles, labels)
    return finish(figure, axes, return_fig=return_fig)


def _bars(axis: Axes, rows: pd.DataFrame, groups: Sequence[str], colors: dict[str, str]) -> None:
    edits = [e for e in EDITS if (rows["edit"].astype(str) == e).any()]
    wide = 0.8 / len(groups)
    for i, edit in enumerate(edits):
        for j, reference in enumerate(groups):
            row = _select(rows, edit=edit, reference=reference).iloc[0]
            x = i + (j - (len(groups) - 1) / 2) * wide
            color = colors.get(reference, GREY)
            control = edit in {"random", "fade"}
            axis.bar(
                x,
                row["mean"],
                width=0.92 * wide,
                color=lighten(color, 0.6 if control else 0.15),
                edgecolor=color,
                hatch="////" if control else None,
                linewidth=0.6,
                yerr=row["sd"],
                error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": "#333333"},
                label=f"to real {reference}" if i == 0 else None,
            )
            axis.hlines(row["floor"], x - wide / 2, x + wide / 2, colors="black", linestyles=(0, (1, 1)), linewidth=1.1)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set_xticks(range(len(edits)), [EDITS[e] for e in edits])
    axis.set_xlim(-0.55, len(edits) - 0.45)


def _gaps(adata: AnnData, entry: Any, features: Sequence[str] | None, ax: Any, *, return_fig: bool) -> Any:
    table = entry["morphology"]
    present = list(dict.fromkeys(table["feature"].astype(str)))
    if features is None:
        features = [
            f
            for f in present
            if f in {"nucleus_area", "nucleus_texture"} or f.endswith(("_window_mean", "_nucleus_mean"))
        ]
    for feature in features:
        if feature not in present:
            msg = f"features: {feature!r} was not measured. {describe_options(present, feature)}"
            raise KeyError(msg)
    panels = _panels(table, ["images", "cells", "source", "target"])
    directions = len({p[2:] for p in panels})
    colors = group_colors(adata, str(entry[_keys.PARAMS]["groupby"]))
    with style():
        figure, axes = make_axes(ax, len(panels), ncols=directions, panel=(3.4, 0.9 + 0.34 * len(features)))
        for k, ((images, cells, source, target), axis) in enumerate(zip(panels, axes, strict=True)):
            rows = _select(table, images=images, cells=cells, source=source, target=target)
            where = {"images": images, "cells": cells, "source": source, "target": target}
            _dots(axis, rows, features, _select(entry["donors"], **where) if "donors" in entry else None)
            shown = "" if cells == "all" else f", {cells}"
            axis.set_title(f"{images}: {source} → {target}{shown}", color=colors.get(target, "black"))
            names = [feature_label(adata, "", f).replace(" (px)", "") for f in features]
            axis.set_yticks(
                range(len(features)), names if k % directions == 0 or ax is not None else [""] * len(features)
            )
            axis.set_ylim(len(features) - 0.4, -0.6)
            if k >= len(panels) - directions:
                axis.set_xlabel("share of the real gap closed")
        drawn = {label: handle for a in axes for handle, label in zip(*a.get_legend_handles_labels(), strict=True)}
        if ax is None:
            figure.legend(drawn.values(), drawn.keys(), loc="outside upper center", ncols=len(drawn))
        else:
            axes[0].legend(drawn.values(), drawn.keys())
    return finish(figure, axes, return_fig=return_fig)


def _dots(axis: Axes, rows: pd.DataFrame, features: Sequence[str], donors: pd.DataFrame | None) -> None:
    axis.axvline(0, color="black", linewidth=0.7)
    axis.axvline(1, color="black", linewidth=0.7, linestyle=(0, (3, 2)))
    edits = [e for e in _MARKS if (rows["edit"].astype(str) == e).any()]
    most = 1.0
    for j, edit in enumerate(edits):
        color, marker = _MARKS[edit]
        part = _select(rows, edit=edit)
        part = part.set_index(part["feature"].astype(str)).reindex(list(features))
        gap = part["gap"].to_numpy(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            value, low, high = (part[c].to_numpy(float) / gap for c in ("change", "change_low", "change_high"))
        y = np.arange(len(features)) + (j - (len(edits) - 1) / 2) * 0.17
        spread = np.abs(np.stack([np.minimum(low, high), np.maximum(low, high)]) - value)
        shown = np.isfinite(value)
        if shown.any():
            most = max(most, float(np.abs(value[shown]).max()))
        if donors is not None:
            each = _select(donors, edit=edit)
            for at, feature in enumerate(features):
                points = _select(each, feature=feature)["change"].to_numpy(float) / gap[at]
                axis.scatter(
                    points, np.full(len(points), y[at]), s=9, color=lighten(color, 0.45), marker=marker, linewidths=0
                )
        axis.errorbar(
            value[shown],
            y[shown],
            xerr=spread[:, shown],
            fmt=marker,
            color=color,
            markersize=4,
            linewidth=1,
            label=EDITS[edit].replace("\n", " "),
        )
    axis.set_xlim(-min(most, 2.0) * 0.6, min(most, 2.0) * 1.25)
