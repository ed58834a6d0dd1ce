"""Features along doses of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_choice, check_entry

from ._drawing import GREY, change_label, finish, group_colors, make_axes, palette, style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

LINES = ["-", "--", ":", "-."]


@checked
def dose_response(
    adata: AnnData,
    *,
    key: str = "dose_response",
    features: Sequence[str] | str | None = None,
    interval: str = "cells",
    ncols: int = 3,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw the change of features against the factor that genes were multiplied by, with 95 % bands.

    One panel per feature. With one gene (or set) lines have the groups' colours; with more, genes have colours and groups
    have line styles.

    Parameters
    ----------
    adata
        After :func:`sst.tl.dose_response`.
    key
        Its slot.
    features
        Features to draw (default: all).
    interval
        ``"cells"`` or ``"fovs"``: what was resampled.
    ncols
        Panels per row.
    ax
        Axes to draw on, one per feature.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.
    """
    entry = check_entry(adata, key, "table", _keys.PARAMS, by="sst.tl.dose_response")
    table, params = entry["table"], entry[_keys.PARAMS]
    check_choice("interval", interval, ["cells", "fovs"])
    present = list(dict.fromkeys(table["feature"].astype(str)))
    wanted = present if features is None else [features] if isinstance(features, str) else list(features)
    for feature in wanted:
        check_choice("feature", feature, present)
    names = list(dict.fromkeys(table["genes"].astype(str)))
    groups = list(dict.fromkeys(table["group"].astype(str)))
    single = len(names) == 1
    group_color = group_colors(adata, str(params["groupby"]))
    gene_color = dict(zip(names, palette(len(names)), strict=True))
    factors = np.unique(table["factor"].to_numpy(dtype=float))
    places = _places(factors)
    with style():
        figure, axes = make_axes(ax, len(wanted), ncols=ncols, panel=(2.9, 2.5))
        for k, (feature, axis) in enumerate(zip(wanted, axes, strict=True)):
            axis.axhline(0, color=GREY, linewidth=0.8)
            if 1.0 in places:
                axis.axvline(places[1.0], color=GREY, linewidth=0.8)
            for name in names:
                for g, group in enumerate(groups):
                    here = (table["feature"] == feature) & (table["genes"] == name) & (table["group"] == group)
                    part = table[here.to_numpy()].sort_values("factor")
                    x = [places[f] for f in part["factor"]]
                    color = group_color.get(group, "#7F7F7F") if single else gene_color[name]
                    label = group if single else name if len(groups) == 1 else f"{name}, {group}"
                    suffix = "" if interval == "cells" else "_fov"
                    axis.fill_between(
                        x, part[f"low{suffix}"], part[f"high{suffix}"], color=color, alpha=0.15, linewidth=0
                    )
                    line = "-" if single else LINES[g % len(LINES)]
                    axis.plot(x, part["mean"], line, marker="o", markersize=3, color=color, label=label, linewidth=1.2)
            axis.set_xticks(list(places.values()), [f"{f:g}" for f in places])
            axis.set_xlabel(f"counts of {names[0] if single else 'the gene'}, times")
            axis.set_ylabel(f"change of {change_label(adata, feature)}")
            if k == len(wanted) - 1:
                axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return finish(figure, axes, return_fig=return_fig)


def _places(factors: np.ndarray) -> dict[float, float]:
    """Where each factor stands: log2, and 0 one step below the least."""
    positive = factors[factors > 0]
    logs = np.log2(positive)
    step = float(np.diff(logs).mean()) if len(logs) > 1 else 1.0
    places = dict(zip(positive.tolist(), logs.tolist(), strict=True))
    if len(positive) < len(factors):
        places = {0.0: (float(logs[0]) if len(logs) else 1.0) - step} | places
    return places
