"""Cells side by side: real, generated, edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_groups, check_range, describe_options, resolve_subset
from sst.io import crop_reader

from ._drawing import channel_colors, edit_target, finish, group_colors, grouping, key_label, show_image, style, to_rgb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData


@checked
def gallery(
    adata: AnnData,
    *,
    keys: Sequence[str] | None = None,
    groupby: str | None = None,
    cells: Sequence[str] | None = None,
    n_cells: int = 5,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    channels: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    seed: int = 0,
    cell_inches: float = 0.95,
    return_fig: bool = False,
) -> Any:
    """The same cells in every slot: real, generated or reconstructed, edited (the paper's figure i.0).

    One block of columns a group, one column a cell, one row a slot. Cells are drawn at random, held-out ones where
    ``obs["split"]`` says which, and only such as have images in every slot; none is picked by hand unless ``cells`` says so.

    Parameters
    ----------
    adata
        Paired cells with images.
    keys
        Slots, one a row; ``None``: all with the crops' shape.
    groupby
        Column of the groups; ``None``: the one used before, else ``"condition"``.
    cells
        Names of the cells to show, instead of random ones.
    n_cells
        Cells of each group.
    subset
        Draw from these cells only: mask, query, or ``{key: [categories]}``.
    channels
        Channels to show; ``None``: all.
    colors
        A colour for each channel shown; ``None``: grey, or green and blue, or red, green, blue, ...; brightfield images (H&E) as they are.
    seed
        Of the choice.
    cell_inches
        Side of an image.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes (rows x columns), or the figure.
    """
    keys = _image_keys(adata) if keys is None else list(keys)
    if not keys:
        msg = "adata.obsm holds no images."
        raise KeyError(msg)
    for key in keys:
        if key not in adata.obsm:
            msg = f"keys: {key!r} is not in adata.obsm. {describe_options(_image_keys(adata), key)}"
            raise KeyError(msg)
    check_range("n_cells", n_cells, low=1)
    groupby = grouping(adata, groupby)
    groups = check_groups(adata, groupby)
    names = [str(c) for c in _keys.entry(adata, _keys.CROPS).get("channels", range(adata.obsm[keys[0]].shape[1]))]
    shown = _channels(names, channels)
    rows = _choose(
        adata, groupby, groups, cells, n_cells, resolve_subset(adata, subset) & _keys.drawn(adata, *keys), seed
    )
    light = _keys.is_brightfield(adata)
    tints = list(colors) if colors is not None else channel_colors(shown, brightfield=light)
    everyone, groups = groups, [g for g in groups if len(rows.get(g, ()))]
    palette = group_colors(adata, groupby)
    with style():
        import matplotlib.pyplot as plt

        widths: list[float] = []
        for k, group in enumerate(groups):
            widths += ([0.18] if k else []) + [1.0] * len(rows[group])
        figure, axes = plt.subplots(
            len(keys),
            len(widths),
            figsize=(cell_inches * sum(widths) + 1.0, cell_inches * len(keys) + 0.55),
            squeeze=False,
            width_ratios=widths,
            gridspec_kw={
                "wspace": 0.04,
                "hspace": 0.04,
                "left": 1.0 / (cell_inches * sum(widths) + 1.0),
                "right": 0.995,
            },
        )
        height = cell_inches * len(keys) + 0.55
        figure.subplots_adjust(top=1 - 0.3 / height, bottom=0.22 / height)
        for i, key in enumerate(keys):
            at = 0
            for k, group in enumerate(groups):
                if k:
                    axes[i, at].set_axis_off()
                    at += 1
                images = to_rgb(_scaled(adata, key, rows[group])[:, shown], tints)
                for image in images:
                    show_image(axes[i, at], image)
                    at += 1
            axes[i, 0].set_ylabel(key_label(key, adata), rotation=0, ha="right", va="center", labelpad=5)
        _headers(adata, axes, groups, everyone, rows, keys, palette)
        _scale_bar(adata, axes[-1, -1], "black" if light else "white")
        position = axes[-1, 0].get_position().x0
        for k, (channel, tint) in enumerate(zip([names[c] for c in shown], tints, strict=False)):
            figure.text(
                position + k * 0.9 / figure.get_figwidth(),
                0.05 / height,
                f"■ {channel}",
                color=_dark(tint),
                fontsize=7,
                va="bottom",
            )
    return finish(figure, axes, return_fig=return_fig) if return_fig else axes


def _image_keys(adata: AnnData) -> list[str]:
    shape = getattr(adata.obsm.get(_keys.CROPS), "shape", None)
    keys = [k for k, v in adata.obsm.items() if getattr(v, "ndim", 0) == 4 and (shape is None or v.shape == shape)]
    first = [k for k in (_keys.CROPS, _keys.GENERATED) if k in keys]
    return first + [k for k in keys if k not in first]


def _channels(names: list[str], wanted: Sequence[str] | None) -> list[int]:
    if wanted is None:
        return list(range(len(names)))
    for name in wanted:
        if name not in names:
            msg = f"channels: {name!r} is not a channel. {describe_options(names, name)}"
            raise KeyError(msg)
    return [names.index(n) for n in wanted]


def _choose(
    adata: AnnData,
    groupby: str,
    groups: Sequence[str],
    cells: Sequence[str] | None,
    n_cells: int,
    mask: np.ndarray,
    seed: int,
) -> dict[str, np.ndarray]:
    labels = adata.obs[groupby].astype(str).to_numpy()
    if cells is not None:
        if not len(cells):
            msg = "cells names none: at least one is needed (None: random ones)."
            raise ValueError(msg)
        index = adata.obs_names.get_indexer(list(cells))
        if (index < 0).any():
            absent = [c for c, i in zip(cells, index, strict=True) if i < 0]
            msg = f"cells: {absent[:5]} are not in the object. {describe_options(adata.obs_names, absent[0], most=3)}"
            raise KeyError(msg)
        return {g: index[labels[index] == g] for g in groups}
    if _keys.SPLIT in adata.obs:
        held = mask & (adata.obs[_keys.SPLIT].astype(str) == "test").to_numpy()
        mask = held if held.any() else mask
    rng = np.random.default_rng(seed)
    out = {}
    for group in groups:
        rows = np.flatnonzero(mask & (labels == group))
        out[group] = np.sort(rng.choice(rows, min(n_cells, len(rows)), replace=False))
    return out


def _scaled(adata: AnnData, key: str, rows: np.ndarray) -> np.ndarray:
    """Images as uint8; others are stretched, channel by channel, over the 0.5th to 99.8th percentile of those shown."""
    images = crop_reader(adata, key).take(rows)
    if images.dtype == np.uint8:
        return images
    values = images.astype(float)
    low = np.nanquantile(values, 0.005, axis=(0, 2, 3), keepdims=True)
    high = np.nanquantile(values, 0.998, axis=(0, 2, 3), keepdims=True)
    return np.nan_to_num(np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)


def _headers(
    adata: AnnData,
    axes: np.ndarray,
    groups: Sequence[str],
    everyone: Sequence[str],
    rows: Mapping[str, np.ndarray],
    keys: Sequence[str],
    palette: dict[str, str],
) -> None:
    at = 0
    for k, group in enumerate(groups):
        at += bool(k)
        first, last = axes[0, at].get_position(), axes[0, at + len(rows[group]) - 1].get_position()
        targets = dict.fromkeys(t for key in keys if (t := edit_target(adata, key, group, everyone)))
        title = group + (f"  (edits → {', '.join(targets)})" if targets else "")
        figure = axes[0, 0].figure
        figure.text(
            (first.x0 + last.x1) / 2,
            first.y1 + 0.09 / figure.get_figheight(),
            title,
            ha="center",
            va="bottom",
            color=palette[group],
            weight="bold",
        )
        import matplotlib.lines as lines

        y = first.y1 + 0.05 / figure.get_figheight()
        figure.add_artist(lines.Line2D([first.x0, last.x1], [y, y], color=palette[group], linewidth=2))
        at += len(rows[group])


def _scale_bar(adata: AnnData, axis: Any, color: str) -> None:
    """A bar of a round number of micrometres in the last image, where the pixel size is known."""
    size = float(_keys.entry(adata, _keys.CROPS).get("pixel_size", 0.0) or 0.0)
    if not size:
        return
    width = abs(np.diff(axis.get_xlim())[0])
    length = next((n for n in (20, 10, 5, 2, 1) if n / size <= 0.5 * width), None)
    if length is None:
        return
    right, y = width - 0.5 - 0.06 * width, 0.93 * width
    axis.plot([right - length / size, right], [y, y], color=color, linewidth=1.8, solid_capstyle="butt")
    axis.text(
        right - length / size / 2,
        y - 0.03 * width,
        f"{length} µm",
        color=color,
        ha="center",
        va="bottom",
        fontsize=5.5,
    )


def _dark(color: str) -> tuple[float, ...]:
    """A tint that reads on white."""
    from matplotlib.colors import to_rgb as rgb

    return tuple((0.35 if rgb(color) == (1, 1, 1) else 0.7) * v for v in rgb(color))
