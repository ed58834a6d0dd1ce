"""A gene against the image feature that it should drive, in real and in generated cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy import stats

from sst import _keys
from sst._arguments import checked
from sst._validate import check_genes, check_groups, check_key, resolve_subset

from ._drawing import (
    default_features,
    feature_column,
    feature_label,
    finish,
    group_colors,
    grouping,
    key_label,
    make_axes,
    measured_keys,
    sample,
    style,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

_DOTS = 3000


@checked
def gene_marker(
    adata: AnnData,
    genes: str | Sequence[str],
    feature: str | None = None,
    *,
    keys: Sequence[str] | None = None,
    groupby: str | None = None,
    layer: str | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    log: bool = True,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    return_fig: bool = False,
) -> Any:
    """Scatter of genes against an image feature, with the rank correlation within each group (the paper's figure S2).

    One row a gene, one column a slot. The correlation is taken within groups: between groups anything that differs
    between the slides correlates. The line is the mean of the feature over cells of like expression.

    Parameters
    ----------
    adata
        After :func:`sst.tl.morphology` of each slot.
    genes
        One or more genes.
    feature
        Measure without the slot's name; ``None``: the first marker's mean over the window, else the nuclear area.
    keys
        Slots; ``None``: real and generated, as far as measured.
    groupby
        Column of the groups; ``None``: the one used before, else ``"condition"``.
    layer
        Counts of the unedited cells; an edited slot is drawn against ``layers[slot]`` where there is one.
    subset
        Draw these cells only: mask, query, or ``{key: [categories]}``.
    log
        Draw log(1 + counts).
    ax
        Axes to draw on, genes x slots in row order.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.
    """
    chosen = check_genes(list(adata.var_names), genes)
    if keys is None:
        keys = [k for k in measured_keys(adata) if k in {_keys.CROPS, _keys.GENERATED}]
    if not keys:
        msg = "nothing was measured on this object: run sst.tl.morphology(adata, key=...) first."
        raise KeyError(msg)
    if feature is None:
        options = default_features(adata, keys[0])
        feature = options[1] if len(options) > 2 else options[0]
    groupby = grouping(adata, groupby)
    groups = check_groups(adata, groupby)
    mask = resolve_subset(adata, subset)
    labels = adata.obs[groupby].astype(str).to_numpy()
    colors = group_colors(adata, groupby)
    with style():
        figure, axes = make_axes(ax, len(chosen) * len(keys), ncols=len(keys), panel=(2.7, 2.5))
        for k, axis in enumerate(axes):
            gene, key = chosen[k // len(keys)], keys[k % len(keys)]
            counts = _counts(adata, gene, key, layer)
            values = feature_column(adata, key, feature)
            for group in groups:
                rows = sample(mask & (labels == group) & np.isfinite(values))
                if len(rows) > 2:
                    _cloud(axis, np.log1p(counts[rows]) if log else counts[rows], values[rows], colors[group], group)
            axis.set_xlabel(f"{gene} ({'log(1 + counts)' if log else 'counts'})")
            if k < len(keys):
                axis.set_title(key_label(key, adata))
            if k % len(keys) == 0:
                axis.set_ylabel(feature_label(adata, key, feature))
            if axis.get_legend_handles_labels()[0]:
                axis.legend(loc="upper left", handletextpad=0.2, borderpad=0.1)
        _share(axes, len(keys))
    return finish(figure, axes, return_fig=return_fig)


def _counts(adata: AnnData, gene: str, key: str, layer: str | None) -> np.ndarray:
    if key in adata.layers and layer is None:
        matrix = adata.layers[key]
    else:
        matrix = adata.X if layer is None else check_key(adata, "layers", layer, name="layer")
    if matrix is None:
        msg = "X is empty: name the layer with the expression (layer=)."
        raise ValueError(msg)
    column: Any = matrix[:, adata.var_names.get_loc(gene)]
    column = column.compute() if hasattr(column, "compute") else column
    return np.asarray(column.todense() if sp.issparse(column) else column, dtype=float).ravel()


def _cloud(axis: Axes, x: np.ndarray, y: np.ndarray, color: str, group: str) -> None:
    constant = np.ptp(x) == 0 or np.ptp(y) == 0
    rho = float("nan") if constant else float(stats.spearmanr(x, y).statistic)
    dots = np.random.default_rng(0).permutation(len(x))[:_DOTS]
    jitter = np.random.default_rng(1).uniform(-0.03, 0.03, len(dots)) * (np.ptp(x) or 1)
    size = float(np.clip(2500 / len(dots), 1.5, 9))
    axis.scatter(x[dots] + jitter, y[dots], s=size, color=color, alpha=0.35, linewidths=0, rasterized=True)
    label = f"{group}  ρ = {rho:.2f}" if np.isfinite(rho) else f"{group}  ρ undefined"
    edges = np.unique(np.quantile(x, np.linspace(0, 1, 9)))
    if len(edges) > 2:
        bins = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
        used = [b for b in range(len(edges) - 1) if (bins == b).sum() >= 3]
        centre = [x[bins == b].mean() for b in used]
        mean = [y[bins == b].mean() for b in used]
        error = [y[bins == b].std(ddof=1) / (bins == b).sum() ** 0.5 for b in used]
        axis.errorbar(
            centre,
            mean,
            error,
            color=color,
            linewidth=1.6,
            marker="o",
            markersize=3,
            label=label,
            markeredgecolor="white",
            markeredgewidth=0.5,
        )
    else:
        axis.plot([], [], "o", color=color, markersize=3, label=label)


def _share(axes: np.ndarray, ncols: int) -> None:
    """Panels of a gene have one range on each axis."""
    for start in range(0, len(axes), ncols):
        row = axes[start : start + ncols]
        for get, put in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
            limits = np.array([getattr(a, get)() for a in row])
            for a in row:
                low, high = limits[:, 0].min(), limits[:, 1].max()
                getattr(a, put)(low, high + (0.18 * (high - low) if put == "set_ylim" else 0))
