"""Distances to the groups' real cells, before and after an edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sst._arguments import checked
from sst._validate import check_choice, check_entry, check_groups, describe_options

from ._drawing import edit_target, finish, group_colors, key_label, lighten, make_axes, style

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

METRIC_LABELS = {
    "frechet": "Fréchet distance",
    "kid": "kernel distance (KID)",
    "d_eig": "$d_{Eig}$",
    "d_lea": "$d_{LEA}$",
    "precision": "precision",
    "recall": "recall",
}


@checked
def distances(
    adata: AnnData,
    *,
    key: str = "distances",
    metric: str = "frechet",
    keys: Sequence[str] | None = None,
    ncols: int = 2,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    return_fig: bool = False,
) -> Any:
    """Bars of the distance of real, generated and edited cells to each group's real cells (the paper's figure q.2).

    One panel a group of cells. A bar is the mean over repeats, its whisker the standard deviation; its colour says to which
    group's real cells the distance is. Dotted lines are the floors: real cells of that group against others of it, at the
    same number of cells. An edit succeeds where the bar of the other group falls.

    Parameters
    ----------
    adata
        After :func:`sst.tl.distances`.
    key
        Slot in ``uns``.
    metric
        Which distance.
    keys
        Image slots to draw; ``None``: all measured.
    ncols
        Panels in a row.
    ax
        Axes to draw on, one a group.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.
    """
    entry = check_entry(adata, key, "table", by="sst.tl.distances")
    table: pd.DataFrame = entry["table"]
    check_choice("metric", metric, sorted(table["metric"].astype(str).unique()))
    table = table[table["metric"].astype(str) == metric]
    present = list(dict.fromkeys(table["key"].astype(str)))
    chosen = present if keys is None else list(keys)
    for name in chosen:
        if name not in present:
            msg = f"keys: {name!r} was not measured. {describe_options(present, name)}"
            raise KeyError(msg)
    groups = list(dict.fromkeys(table["source"].astype(str)))
    groupby = str(entry["params"]["groupby"])
    colors = group_colors(adata, groupby)
    everyone = check_groups(adata, groupby)
    with style():
        width = 0.75 + 0.28 * len(chosen) * len(groups)
        figure, axes = make_axes(ax, len(groups), ncols=ncols, panel=(max(2.4, width), 2.8), sharey=ax is None)
        for k, (source, axis) in enumerate(zip(groups, axes, strict=True)):
            rows = table[table["source"].astype(str) == source]
            labels = [_label(adata, name, source, everyone) for name in chosen]
            _panel(axis, rows, groups, chosen, labels, colors)
            axis.set_title(f"cells of {source}", color=colors.get(source, "black"))
            if k % ncols == 0:
                axis.set_ylabel(METRIC_LABELS.get(metric, metric))
        handles, labels = axes[0].get_legend_handles_labels()
        n = int(table["n"].iloc[0])
        note = f"features: {table['features'].iloc[0]};  n = {n} per sample, {int(table['repeats'].iloc[0])} repeats"
        if ax is None:
            figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
            figure.supxlabel(note, fontsize=6.5, color="#666666")
        else:
            axes[0].legend(handles, labels, loc="best")
    return finish(figure, axes, return_fig=return_fig)


def _label(adata: AnnData, key: str, source: str, groups: Sequence[str]) -> str:
    target = edit_target(adata, key, source, groups)
    return key_label(key, adata) + (f"\n→ {target}" if target else "")


def _panel(
    axis: Axes,
    table: pd.DataFrame,
    groups: Sequence[str],
    keys: Sequence[str],
    names: Sequence[str],
    colors: dict[str, str],
) -> None:
    wide = 0.8 / len(groups)
    for i, key in enumerate(keys):
        for j, reference in enumerate(groups):
            rows = table[(table["key"].astype(str) == key) & (table["reference"].astype(str) == reference)]
            if not len(rows):
                continue
            row = rows.iloc[0]
            x = i + (j - (len(groups) - 1) / 2) * wide
            color = colors.get(reference, "#7F7F7F")
            axis.bar(
                x,
                row["mean"],
                width=0.92 * wide,
                color=lighten(color, 0.15),
                edgecolor=color,
                linewidth=0.6,
                yerr=row["sd"],
                error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": "#333333"},
                label=f"to real {reference}" if i == 0 else None,
            )
            axis.hlines(row["floor"], x - wide / 2, x + wide / 2, colors="black", linestyles=(0, (1, 1)), linewidth=1.1)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set_xticks(
        range(len(names)), names, rotation=30 if len(names) > 3 else 0, ha="right" if len(names) > 3 else "center"
    )
    axis.set_xlim(-0.55, len(names) - 0.45)
