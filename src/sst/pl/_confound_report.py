"""What could explain a difference between groups besides biology."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_entry, describe_options

from ._drawing import GREY, PALETTE, change_label, finish, group_colors, make_axes, style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

PANELS = ("prediction", "depth", "limits", "genes", "effects")
KINDS = {
    "background": "background\n(pixels far from the cell)",
    "extremes": "darkest and brightest\npixels",
    "depth": "depth (transcripts and\ngenes in the window)",
    "all": "all of these",
}
_INK = "#333333"


@checked
def confound_report(
    adata: AnnData,
    genes: str | Sequence[str] | None = None,
    *,
    key: str = "confound_report",
    panels: str | Sequence[str] | None = None,
    control: str = "random genes",
    n_genes: int = 12,
    ncols: int | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw what :func:`sst.tl.confound_report` found, one panel a question.

    ``"prediction"``
        How often the group of a cell in fields not seen is told right from what has no biology in it (balanced accuracy, bars
        of one standard deviation over folds), between guessing and always.
    ``"depth"``
        Transcripts of a cell's window in each group: the median (dot) and the mean (tick).
    ``"limits"``
        Lowest and highest intensity of each slide and channel, as :func:`sst.pp.rescale_intensity` found them.
    ``"genes"``
        Fold change of genes between the groups as counted (open) and at equal depth (filled).
    ``"effects"``
        How much of the edit's effect is left when that of a control is taken away, if the controls were there; a feature that
        the edit hardly moves has no such share, and is said to be undecided.

    Parameters
    ----------
    adata
        After :func:`sst.tl.confound_report`.
    genes
        Genes of that panel (default: the edit's, where controls were measured, else those that differ most).
    key
        Its slot.
    panels
        Which panels (default: all there is something for).
    control
        The control of the last panel.
    n_genes
        Most genes drawn.
    ncols
        Panels in a row (default: 3, or 2 if there are four).
    ax
        Axes to draw on, one a panel.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.

    Raises
    ------
    KeyError
        Slot, panel, gene or control is not there.
    """
    entry = check_entry(adata, key, "prediction", by="sst.tl.confound_report")
    present = [p for p in PANELS if p in entry and len(entry[p])]
    chosen = present if panels is None else [panels] if isinstance(panels, str) else list(panels)
    for panel in chosen:
        if panel not in present:
            msg = f"panels: {panel!r} is not in uns[{key!r}]. {describe_options(present, panel)}"
            raise KeyError(msg)
    groupby = str(entry[_keys.PARAMS]["groupby"])
    colors = group_colors(adata, groupby)
    with style():
        ncols = ncols or (2 if len(chosen) == 4 else 3)
        figure, axes = make_axes(ax, len(chosen), ncols=ncols, panel=(3.8, 2.6))
        for panel, axis in zip(chosen, axes, strict=True):
            if panel == "prediction":
                _prediction(axis, entry["prediction"], groupby)
            elif panel == "depth":
                _depth(axis, entry["depth"], colors)
            elif panel == "limits":
                _limits(axis, entry["limits"], colors)
            elif panel == "genes":
                _genes(axis, _pick(adata, entry, genes, n_genes), colors)
            else:
                _effects(axis, adata, entry["effects"], control)
    return finish(figure, axes, return_fig=return_fig)


def _rows(axis: Axes, labels: Sequence[str], *, last: float = 0.55) -> None:
    axis.set_yticks(range(len(labels)), labels)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_ylim(len(labels) - 1 + last, -0.6)


def _prediction(axis: Axes, table: pd.DataFrame, groupby: str) -> None:
    chance = float(table["chance"].iloc[0])
    value, sd = table["balanced_accuracy"].to_numpy(float), np.nan_to_num(table["balanced_accuracy_sd"].to_numpy(float))
    names = table["features"].astype(str).tolist()
    for y, (v, s) in enumerate(zip(value, sd, strict=True)):
        color = PALETTE[1] if v > (1 + chance) / 2 else "#6B6B6B"
        axis.barh(y, v - chance, left=chance, height=0.5, color=color, alpha=0.75, linewidth=0)
        axis.hlines(y, v - s, v + s, color=_INK, linewidth=1.2)
        axis.text(
            1.02, y, f"{100 * v:.0f} %", transform=axis.get_yaxis_transform(), va="center", color=color, weight="bold"
        )
    axis.axvline(chance, color=_INK, linewidth=0.8)
    _rows(axis, [KINDS.get(n, n) for n in names])
    least = min(chance, float(np.nanmin(value - sd, initial=chance)))
    axis.set_xlim(least - 0.02, 1.0)
    axis.set_xticks(
        [chance, (1 + chance) / 2, 1.0],
        [f"guessing\n{100 * chance:.0f} %", f"{50 * (1 + chance):.0f} %", "always\n100 %"],
    )
    axis.set_xlabel(f"{groupby} of a cell told right\n(orange: nearer to always than to guessing)")
    axis.set_title("Told apart without biology?", loc="left")


def _depth(axis: Axes, table: pd.DataFrame, colors: dict[str, str]) -> None:
    groups = table["group"].astype(str).tolist()
    for y, (_, row) in enumerate(table.iterrows()):
        color = colors.get(groups[y], GREY)
        median, mean = float(row["total_counts_median"]), float(row["total_counts_mean"])
        axis.hlines(y, 0, median, color=color, linewidth=2)
        axis.plot([median], [y], "o", color=color, markersize=7)
        axis.plot([mean], [y], "|", color=_INK, markersize=11, markeredgewidth=1.2)
        axis.annotate(
            f"{median:,.0f}", (max(median, mean), y), xytext=(8, 0), textcoords="offset points", va="center", color=color,
            weight="bold",
        )  # fmt: skip
    _rows(axis, groups)
    axis.set_xlim(0, 1.25 * float(table[["total_counts_median", "total_counts_mean"]].to_numpy(float).max() or 1))
    axis.set_xlabel("transcripts in a cell's window\n(dot: median, tick: mean)")
    axis.set_title("Sequenced alike?", loc="left")


def _limits(axis: Axes, table: pd.DataFrame, colors: dict[str, str]) -> None:
    channels = list(dict.fromkeys(table["channel"].astype(str)))
    groups = list(dict.fromkeys(table["group"].astype(str)))
    for _, row in table.iterrows():
        group = str(row["group"])
        y = channels.index(str(row["channel"])) + (groups.index(group) - (len(groups) - 1) / 2) * 0.6 / len(groups)
        color = colors.get(group, GREY)
        low, high = float(row["low"]), float(row["high"])
        axis.plot([low, high], [y, y], color=color, linewidth=4, solid_capstyle="butt")
        axis.annotate(
            f"{group}  {low:.0f} to {high:.0f}", (high, y), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize="small", color=color,
        )  # fmt: skip
    _rows(axis, channels)
    axis.set_xlim(0, 1.6 * float(table["high"].max()))
    axis.set_xlabel("lowest to highest intensity, as recorded")
    axis.set_title("Stained and exposed alike?", loc="left")


def _pick(adata: AnnData, entry: Mapping[str, Any], genes: str | Sequence[str] | None, n_genes: int) -> pd.DataFrame:
    """Rows of the genes that are drawn; of the first pair of groups where there are several."""
    table = entry["genes"]
    first = table.iloc[0]
    table = table[(table["source"] == first["source"]) & (table["target"] == first["target"])]
    table = table.set_index(table["gene"].astype(str))
    if genes is None:
        found = _keys.entry(adata, "edit_controls").get(_keys.PARAMS, {}).get("genes") if "effects" in entry else None
        own = [] if found is None else [str(g) for g in found if str(g) in table.index]
        rest = table.index[np.argsort(-table["log2_fold"].abs().to_numpy(float), kind="stable")]
        chosen = [*own, *(g for g in rest if g not in own)][:n_genes]
    else:
        chosen = [genes] if isinstance(genes, str) else [str(g) for g in genes]
        for gene in chosen:
            if gene not in table.index:
                msg = f"genes: {gene!r} was not examined. {describe_options(table.index, gene)}"
                raise KeyError(msg)
    return table.loc[chosen]


def _genes(axis: Axes, table: pd.DataFrame, colors: dict[str, str]) -> None:
    source, target = str(table["source"].iloc[0]), str(table["target"].iloc[0])
    raw, equal = table["log2_fold"].to_numpy(float), table["log2_fold_at_equal_depth"].to_numpy(float)
    color = colors.get(target, PALETTE[1])
    axis.axvline(0, color=_INK, linewidth=0.8)
    y = np.arange(len(table))
    axis.hlines(y, np.minimum(raw, equal), np.maximum(raw, equal), color="#BBBBBB", linewidth=1.2)
    axis.plot(raw, y, "o", markerfacecolor="white", markeredgecolor=color, markersize=5, label="as counted")
    axis.plot(equal, y, "o", color=color, markersize=5, label="at equal depth")
    _rows(axis, table.index.tolist())
    axis.tick_params(axis="y", labelsize="x-small" if len(table) > 14 else None)
    axis.set_xlabel(f"log2 fold change, {target} over {source}")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0, handletextpad=0.2, columnspacing=1)
    axis.set_title("Genes: left at equal depth?", loc="left", pad=17)


def _effects(axis: Axes, adata: AnnData, table: pd.DataFrame, control: str) -> None:
    known = list(dict.fromkeys(table["control"].astype(str)))
    if control not in known:
        if control != "random genes":
            msg = f"control={control!r} was not measured. {describe_options(known, control)}"
            raise KeyError(msg)
        control = known[0]
    table = table[table["control"].astype(str) == control]
    several = table["direction"].nunique() > 1
    labels = []
    axis.axvline(1, color=_INK, linewidth=0.8)
    axis.axvline(0, color=_INK, linewidth=0.8)
    for y, (_, row) in enumerate(table.iterrows()):
        label = change_label(adata, str(row["feature"])).split(" (")[0]
        labels.append(f"{str(row['direction']).replace('->', '→')}\n{label}" if several else label)
        share, low, high = (float(row[c]) for c in ("remaining", "remaining_low", "remaining_high"))
        undecided = not np.isfinite(share) or (low <= 0 <= high)
        if undecided:
            axis.text(
                0.5,
                y,
                "undecided: hardly moved",
                ha="center",
                va="center",
                fontsize="small",
                color="#6B6B6B",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
            continue
        color = PALETTE[0]
        axis.hlines(y, max(low, -0.45), min(high, 1.65), color=color, linewidth=1.6)
        axis.plot([np.clip(share, -0.45, 1.65)], [y], "o", color=color, markersize=6)
        axis.text(
            1.02,
            y,
            f"{100 * share:.0f} %",
            transform=axis.get_yaxis_transform(),
            va="center",
            color=color,
            weight="bold",
        )
    _rows(axis, labels)
    axis.set_xlim(-0.5, 1.7)
    axis.set_xticks([0, 0.5, 1, 1.5], ["nothing", "half", "all of it", "more"])
    name = {"random genes": "genes expressed alike", "half of the source": "an edit within the group"}.get(
        control, control
    )
    axis.set_xlabel(f"of the edit's effect, beside {name}")
    axis.set_title("Edit: left beside its control?", loc="left")
