"""Genes ranked by what they do to a feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_choice, check_entry

from ._drawing import GREY, change_label, finish, group_colors, make_axes, style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes


@checked
def rank_genes_effect(
    adata: AnnData,
    *,
    key: str = "rank_genes_effect",
    groups: Sequence[str] | None = None,
    n_genes: int = 20,
    values: str = "effect",
    ncols: int = 4,
    sharey: bool = True,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw the genes with the strongest effects, a panel per group, with 95 % intervals.

    Parameters
    ----------
    adata
        After :func:`sst.tl.rank_genes_effect`.
    key
        Its slot.
    groups
        Groups to draw (default: all).
    n_genes
        Genes per panel.
    values
        ``"effect"`` or ``"gradient"``.
    ncols
        Panels per row.
    sharey
        One scale for all panels.
    ax
        Axes to draw on, one per group.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.
    """
    entry = check_entry(adata, key, "table", _keys.PARAMS, by="sst.tl.rank_genes_effect")
    table, params = entry["table"], entry[_keys.PARAMS]
    check_choice("values", values, [v for v in ("effect", "gradient") if v in table.columns])
    present = list(dict.fromkeys(table["group"].astype(str)))
    chosen = present if groups is None else [check_choice("group", str(g), present) for g in groups]
    colors = group_colors(adata, str(params["groupby"]))
    with style():
        width = max(2.4, 0.9 + 0.17 * n_genes)
        figure, axes = make_axes(ax, len(chosen), ncols=ncols, panel=(width, 2.7), sharey=sharey)
        for k, (group, axis) in enumerate(zip(chosen, axes, strict=True)):
            part = table[table["group"].astype(str) == group]
            order = np.argsort(-np.abs(np.nan_to_num(part[values].to_numpy(dtype=float))), kind="stable")[:n_genes]
            part = part.iloc[order]
            mean = part[values].to_numpy(dtype=float)
            if values == "effect":
                reach = (part["high"].to_numpy(dtype=float) - part["low"].to_numpy(dtype=float)) / 2
            else:
                reach = 1.96 * part["gradient_se"].to_numpy(dtype=float)
            sure = np.abs(mean) > reach
            axis.axhline(0, color=GREY, linewidth=0.8)
            for x, (m, r, s) in enumerate(zip(mean, reach, sure, strict=True)):
                color = colors.get(group, "#7F7F7F") if s else GREY
                axis.vlines(x, m - r, m + r, color=color, linewidth=1.2)
                axis.plot([x], [m], "o", markersize=4, color=color)
            names = part["gene"].astype(str).tolist()
            axis.set_xticks(range(len(names)), names, rotation=90)
            axis.set_xlim(-0.7, len(names) - 0.3)
            axis.set_title(f"{group} (n = {int(part['n'].max())} cells)")
            if k % ncols == 0:
                axis.set_ylabel(_label(change_label(adata, str(params["feature"])), params, values))
    return finish(figure, axes, return_fig=return_fig)


def _label(feature: str, params: dict[str, Any], values: str) -> str:
    if values == "gradient" or str(params["method"]) == "gradient":
        return f"share of the change of\n{feature}"
    step = {"sd": "+1 sd", "double": "x 2", "knockout": "knocked out"}.get(
        str(params["perturbation"]), f"+{params['perturbation']} counts"
    )
    return f"change of {feature}\n(gene {step})"
