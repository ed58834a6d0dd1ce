"""The effect of an edit beside what its controls do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_choice, check_entry, describe_options

from ._drawing import GREY, PALETTE, change_label, finish, lighten, make_axes, style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

INTERVALS = ("wider", "cells", "fov")
EDIT = "edit"
NO_EDIT = "strength 0"
_INK = "#333333"


@checked
def edit_controls(
    adata: AnnData,
    features: str | Sequence[str] | None = None,
    *,
    key: str = "edit_controls",
    directions: str | Sequence[str] | None = None,
    conditions: Sequence[str] | None = None,
    interval: str = "wider",
    ncols: int | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw what an edit does to the cells beside what its controls do, one panel a direction and feature.

    Dots are mean changes of the feature (after minus before, the same cells) with 95 % intervals; a pale bar is one standard
    deviation between repeats of a control (its random gene sets or shuffles) to either side. The grey band is as far as any
    control reaches, the numbers at the right are the means. The line above each panel says whether the edit stands clear of
    every control: it is larger than each (by two such standard deviations, where there are repeats), and the interval of
    its difference to each, cell by cell, leaves out 0.

    Parameters
    ----------
    adata
        After :func:`sst.tl.edit_controls`.
    features
        Features to draw (default: all that were measured).
    key
        Its slot.
    directions
        Such as ``"normal -> tumor"`` (default: all).
    conditions
        Controls to draw (default: all; ``"strength 0"`` only where it is not exactly nothing, as it is for a GAN).
    interval
        ``"cells"`` (cells resampled), ``"fov"`` (whole fields of view resampled), or ``"wider"``: for each row the wider of the
        two.
    ncols
        Panels in a row (default: one for each feature).
    ax
        Axes to draw on, one a panel: directions outside, features inside.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.

    Raises
    ------
    KeyError
        Slot, feature, direction or condition is not there.
    ValueError
        ``interval`` is not known.
    """
    entry = check_entry(adata, key, "effects", "contrasts", by="sst.tl.edit_controls")
    check_choice("interval", interval, INTERVALS)
    effects, contrasts, params = entry["effects"], entry["contrasts"], entry.get(_keys.PARAMS, {})
    features = _chosen("features", features, effects["feature"])
    directions = _chosen("directions", directions, effects["direction"])
    shown = _conditions(effects, conditions)
    names = {c: _condition_label(c, params) for c in shown}
    with style():
        panel = (2.3 + 1.7 / (ncols or len(features)), 1.05 + 0.3 * len(shown))  # the first of a row has the names
        figure, axes = make_axes(ax, len(directions) * len(features), ncols=ncols or len(features), panel=panel)
        for k, axis in enumerate(axes):
            direction, feature = directions[k // len(features)], features[k % len(features)]
            here = _rows(effects, direction, feature).reindex(shown)
            against = _rows(contrasts, direction, feature).reindex([c for c in shown if c != EDIT])
            first = ax is not None or k % (ncols or len(features)) == 0
            _panel(axis, here, against, names if first else dict.fromkeys(names, ""), interval)
            axis.set_xlabel(f"change of {change_label(adata, feature)}")
            axis.set_title(direction.replace("->", "→"), loc="left", pad=17)
        for k in range(len(features)):
            _same_scale(list(axes[k :: len(features)]))
        if ax is None:
            note = [
                "line: 95 % interval    pale bar: ± 1 sd between repeats",
                "grey band: as far as any control reaches",
            ]
            single = (ncols or len(features)) == 1
            figure.supxlabel(("\n" if single else "    ").join(note), fontsize=6.5, color="#666666")
    return finish(figure, axes, return_fig=return_fig)


def _chosen(name: str, asked: str | Sequence[str] | None, column: pd.Series) -> list[str]:
    known = list(dict.fromkeys(column.astype(str)))
    chosen = known if asked is None else [asked] if isinstance(asked, str) else [str(a) for a in asked]
    for one in chosen:
        if one not in known:
            msg = f"{name}: {one!r} was not measured. {describe_options(known, one)}"
            raise KeyError(msg)
    return chosen


def _conditions(effects: pd.DataFrame, asked: Sequence[str] | None) -> list[str]:
    """The edit first, then its controls."""
    if asked is not None:
        return [EDIT, *(c for c in _chosen("conditions", asked, effects["condition"]) if c != EDIT)]
    known = list(dict.fromkeys(effects["condition"].astype(str)))
    nothing = effects.loc[effects["condition"] == NO_EDIT, "mean"].to_numpy(float)
    last = [] if not np.any(nothing) else [NO_EDIT]
    return [EDIT, *(c for c in known if c not in {EDIT, NO_EDIT}), *last]


def _condition_label(condition: str, params: Mapping[str, Any]) -> str:
    """A condition in words, with the number of its repeats."""
    if condition == EDIT:
        genes = params.get("genes")
        listed = [] if genes is None else [str(g) for g in genes]
        what = "all genes" if not listed else ", ".join(listed) if len(listed) <= 3 else f"{len(listed)} genes"
        return f"the edit: {what}"
    return {
        "random genes": "other genes, expressed\nalike" + _times(params, "n_random", "sets"),
        "shuffled labels": "groups shuffled" + _times(params, "n_shuffles", "times"),
        "half of the source": "toward the other half\nof the same group",
        NO_EDIT: "fading of the pixels'\ncode alone" if params.get("model_kind") == "inversion" else "no edit",
    }.get(condition, condition)


def _times(params: Mapping[str, Any], name: str, unit: str) -> str:
    n = int(params.get(name, 0))
    return f" ({n} {unit})" if n > 1 else ""


def _rows(table: pd.DataFrame, direction: str, feature: str) -> pd.DataFrame:
    keep = (table["direction"].astype(str) == direction) & (table["feature"].astype(str) == feature)
    part = table[keep]
    return part.set_index(part["condition"].astype(str))


def _limits(row: pd.Series, interval: str) -> tuple[float, float]:
    """Ends of the interval asked for."""
    cells, fov = (float(row["low"]), float(row["high"])), (float(row["low_fov"]), float(row["high_fov"]))
    if not np.all(np.isfinite(fov)) or interval == "cells":
        return cells
    return max((cells, fov), key=lambda ends: ends[1] - ends[0]) if interval == "wider" else fov


def not_clear_of(effects: pd.DataFrame, contrasts: pd.DataFrame, interval: str = "wider") -> list[str]:
    """Controls that the edit does not stand clear of; tables of one direction and feature, indexed by condition."""
    edit = float(effects.loc[EDIT, "mean"])
    close = []
    for condition, row in contrasts.iterrows():
        other, spread = float(effects.loc[condition, "mean"]), float(effects.loc[condition, "sd_repeats"])
        low, high = _limits(row, interval)
        apart = low > 0 or high < 0
        if not (apart and abs(edit) > abs(other) + (2 * spread if np.isfinite(spread) else 0)):
            close.append(str(condition))
    return close


def _same_scale(axes: Sequence[Axes]) -> None:
    """One scale for all directions of a feature, with room at its ends."""
    low, high = min(a.get_xlim()[0] for a in axes), max(a.get_xlim()[1] for a in axes)
    for axis in axes:
        axis.set_xlim(low, high)


def _numbers(values: np.ndarray) -> list[str]:
    """Values with as many decimals as the largest of them needs for two or three figures."""
    top = np.nanmax(np.abs(values), initial=0.0)
    decimals = int(np.clip(1 - np.floor(np.log10(top)), 1, 4)) if top > 0 else 1
    zero = f"{0:.{decimals}f}"
    texts = [f"{v:+.{decimals}f}" for v in values]
    return [zero if t[1:] == zero else t.replace("-", "−") for t in texts]


def _panel(axis: Axes, effects: pd.DataFrame, contrasts: pd.DataFrame, names: dict[str, str], interval: str) -> None:
    ends = {c: _limits(row, interval) for c, row in effects.iterrows()}
    spread = effects["sd_repeats"].to_numpy(float)
    mean = effects["mean"].to_numpy(float)
    wide, written = np.nan_to_num(spread), _numbers(mean)
    controls = np.arange(len(mean)) > 0
    reach = [*(np.array([ends[c] for c in effects.index])[controls].ravel()), 0.0]
    reach += [*(mean - wide)[controls], *(mean + wide)[controls]]
    reach = [r for r in reach if np.isfinite(r)]
    axis.axvspan(min(reach), max(reach), color="#EFEFEF", linewidth=0, zorder=0)
    axis.axvline(0, color=_INK, linewidth=0.8, zorder=1)
    close = not_clear_of(effects, contrasts, interval)
    strong = PALETTE[1] if not close else _INK
    for y, (condition, row) in enumerate(effects.iterrows()):
        value = float(row["mean"])
        if not np.isfinite(value):
            axis.text(0, y, " not measured", va="center", fontsize="small", color=GREY)
            continue
        is_edit = condition == EDIT
        color = strong if is_edit else "#6B6B6B"
        if np.isfinite(spread[y]):
            axis.hlines(y, value - spread[y], value + spread[y], color=lighten("#6B6B6B", 0.55), linewidth=6, zorder=2)
        axis.hlines(y, *ends[condition], color=color, linewidth=2.0 if is_edit else 1.3, zorder=3)
        axis.plot([value], [y], "o", color=color, markersize=7 if is_edit else 4.5, zorder=4)
        axis.text(
            1.02,
            y,
            written[y],
            transform=axis.get_yaxis_transform(),
            va="center",
            fontsize="small",
            color=color,
            weight="bold" if is_edit else "normal",
        )
    axis.axhline(0.5, color="#CCCCCC", linewidth=0.6)
    axis.set_yticks(range(len(effects)), [names[str(c)] for c in effects.index])
    axis.get_yticklabels()[0].set(weight="bold", color=strong)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_ylim(len(effects) - 0.45, -0.6)
    said = "stands clear of its controls" if not close else "no more than its controls"
    if close and len(close) < len(contrasts):
        short = {
            "random genes": "other genes",
            "shuffled labels": "shuffled groups",
            "half of the source": "same group",
        }
        said = "not clear of: " + ", ".join(short.get(c, "fading alone" if c == NO_EDIT else c) for c in close)
    axis.text(
        1,
        1.03,
        f"n = {int(effects['n'].max())} cells",
        transform=axis.transAxes,
        fontsize="small",
        ha="right",
        color=GREY,
    )
    axis.text(0, 1.03, said, transform=axis.transAxes, fontsize="small", color=strong if not close else "#666666")
