"""Genes before and after an edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from sst import _keys
from sst._arguments import checked
from sst._validate import check_genes, check_key, describe_options, resolve_subset
from sst.editing import take_rows

from ._drawing import bracket, finish, group_colors, lighten, make_axes, stars, style, violin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

MOST_CELLS = 20_000
"""Cells of a group that are drawn and tested."""


@checked
def expression_shift(
    adata: AnnData,
    genes: str | Iterable[str] | None = None,
    *,
    key: str = _keys.EDITED,
    groupby: str | None = None,
    layer: str | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    n_genes: int = 8,
    log: bool = True,
    ncols: int = 4,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    return_fig: bool = False,
) -> Any:
    """Violins of genes before and after an edit, beside the real cells of the target (the paper's figures q.0 and q.1).

    For each gene and direction: real source cells, the same cells edited, real target cells. Stars are those of a
    two-sided Wilcoxon signed-rank test of the cells before against after (``****`` P <= 1e-4); below them, in grey, a
    two-sided Mann-Whitney test of the edited cells against the target's real ones, where ``ns`` is what is hoped for. Cells of a
    field of view are not independent: stars describe the violins; :func:`sst.tl.evaluate` has intervals and tests over fields.

    Parameters
    ----------
    adata
        After :func:`sst.tl.edit`.
    genes
        Genes to draw (default: the ``n_genes`` edited genes whose means moved most, in units of their spread).
    key
        Name of the edit.
    groupby
        Column of the groups (default: the edit's).
    layer
        Unedited counts (default: the edit's).
    subset
        Draw these cells only: mask, query, or ``{key: [categories]}``.
    n_genes
        How many genes to choose.
    log
        Draw log(1 + counts).
    ncols
        Panels per row.
    ax
        Axes to draw on, one per gene.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.
    """
    edited = check_key(adata, "layers", key)
    entry = _keys.entry(adata, key)
    params, report = entry.get(_keys.PARAMS, {}), entry.get(_keys.REPORT, {})
    groupby = groupby or str(params.get("groupby", _keys.CONDITION))
    layer = layer or params.get("layer")
    before = adata.X if layer is None else check_key(adata, "layers", str(layer), name="layer")
    if before is None:
        msg = "X is empty: name the layer with the expression (layer=)."
        raise ValueError(msg)
    mask = resolve_subset(adata, subset)
    labels = check_key(adata, "obs", groupby, name="groupby").astype(str).to_numpy()
    directions = _directions(report, labels)
    chosen = _most_moved(report, adata, n_genes) if genes is None else check_genes(list(adata.var_names), genes)
    columns = adata.var_names.get_indexer(chosen)
    colors = group_colors(adata, groupby)
    index = {g: _sample(mask & (labels == g)) for d in directions for g in d if g in colors}
    if "all" in {d[0] for d in directions}:
        index["all"] = _sample(mask)
    missing = [g for g, _ in directions if g not in index]
    if missing:
        msg = f"uns[{key!r}] is of an edit of the groups {missing}, which obs[{groupby!r}] does not have."
        raise ValueError(msg)
    values = {(g, "before"): _values(before, rows, columns, log=log) for g, rows in index.items()}
    values |= {(g, "after"): _values(edited, index[g], columns, log=log) for g, _ in directions}
    if not all(np.isfinite(one).all() for one in values.values()):
        msg = f"the expression of {chosen} before or after the edit {key!r} holds NaN or infinite values."
        raise ValueError(msg)
    with style():
        width = 1.0 + 0.42 * sum(2 if len(directions) > 1 or not t else 3 for _, t in directions)
        figure, axes = make_axes(ax, len(chosen), ncols=ncols, panel=(max(width, 1.9), 2.5))
        for k, (gene, axis) in enumerate(zip(chosen, axes, strict=True)):
            _panel(axis, k, directions, values, colors)
            axis.set_title(gene)
            if k % ncols == 0 or ax is not None:
                axis.set_ylabel("log(1 + counts)" if log else "counts")
    return finish(figure, axes, return_fig=return_fig)


def _panel(
    axis: Axes,
    k: int,
    directions: list[tuple[str, str]],
    values: dict[tuple[str, str], np.ndarray],
    colors: dict[str, str],
) -> None:
    """Violins of one gene. Of two opposite directions each group's real cells are the other's target."""
    ticks: list[str] = []
    drawn: list[tuple[np.ndarray, str]] = []
    pairs: list[tuple[int, int, int | None]] = []  # before, after, target
    both = len(directions) == 2 and directions[0] == directions[1][::-1]
    for source, target in directions:
        at = len(ticks)
        ticks += [source, f"{source}\n→ {target}" if target else f"{source}\nedited"]
        color = colors.get(source, "#7F7F7F")
        drawn += [
            (values[source, "before"][:, k], color),
            (values[source, "after"][:, k], lighten(colors.get(target, color), 0.45)),
        ]
        pairs.append((at, at + 1, None))
        if target and not both:
            pairs[-1] = (at, at + 1, at + 2)
            ticks.append(target)
            drawn.append((values[target, "before"][:, k], colors.get(target, "#7F7F7F")))
    if both:
        pairs = [(0, 1, 2), (2, 3, 0)]
    violin(axis, [v for v, _ in drawn], list(range(len(drawn))), [c for _, c in drawn])
    top = max((float(v.max()) for v, _ in drawn if v.size), default=1.0) or 1.0
    axis.set_ylim(min(0.0, *(float(v.min()) for v, _ in drawn if v.size)) - 0.03 * top, 1.3 * top)
    for first, second, goal in pairs:
        x, y = drawn[first][0], drawn[second][0]
        if not len(x):
            continue
        p = float(stats.wilcoxon(x, y).pvalue) if (x != y).any() else 1.0
        bracket(axis, first, second, 1.06 * top, stars(p), height=0.03 * top)
        if goal is not None and len(drawn[goal][0]) > 0:
            q = float(stats.mannwhitneyu(y, drawn[goal][0], alternative="two-sided").pvalue)
            axis.text(second, 0.99 * top, stars(q), ha="center", va="bottom", fontsize="x-small", color="#7F7F7F")
    axis.set_xticks(range(len(ticks)), ticks, rotation=35, ha="right", rotation_mode="anchor")


def _directions(report: Mapping[str, Any], labels: np.ndarray) -> list[tuple[str, str]]:
    table = report.get("directions")
    if table is None:
        groups = sorted(set(labels))
        if len(groups) != 2:
            msg = f"no report says what was edited, and there are {len(groups)} groups. {describe_options(groups)}"
            raise ValueError(msg)
        return [(groups[0], groups[1]), (groups[1], groups[0])]
    return [(str(a), str(b)) for a, b in zip(table["source"], table["target"], strict=True)]


def _most_moved(report: Mapping[str, Any], adata: AnnData, n_genes: int) -> list[str]:
    table = report.get("genes")
    if table is None:
        return list(adata.var_names[:n_genes])
    move = (table["mean_edited"] - table["mean_source"]).abs() / np.sqrt(table["mean_source"] + 0.1)
    ranked = pd.Series(move.to_numpy(), index=table["gene"].astype(str)).groupby(level=0).max()
    return ranked.sort_values(ascending=False, kind="stable").index[:n_genes].tolist()


def _sample(mask: np.ndarray) -> np.ndarray:
    index = np.flatnonzero(mask)
    return (
        index
        if len(index) <= MOST_CELLS
        else np.sort(np.random.default_rng(0).choice(index, MOST_CELLS, replace=False))
    )


def _values(X: Any, rows: np.ndarray, columns: np.ndarray, *, log: bool) -> np.ndarray:
    values = take_rows(X[:, columns], rows)
    return np.log1p(values.clip(min=0)) if log else values
