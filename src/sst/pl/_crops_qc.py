"""What to look at after cutting and rescaling: intensities and their limits, counts, and cells left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_groups, check_key, check_range

from ._drawing import finish, group_colors, make_axes, style

if TYPE_CHECKING:
    from anndata import AnnData

_REASONS = {
    "dropped_no_image": "FOV without image",
    "dropped_no_centre": "no centre",
    "dropped_outside_image": "window leaves image",
    "dropped_border": "border",
    "dropped_outside_transcripts": "window leaves transcripts",
}


@checked
def crops_qc(
    adata: AnnData, groupby: str | None = None, *, n_cells: int = 2000, seed: int = 0, return_fig: bool = False
) -> Any:
    """Check paired crops: one panel a channel, then counts, then where cells were lost.

    A channel's panel shows how the crops' minima (light) and maxima (dark) are distributed over the cells of each group, with the
    group's limits (dashed) and the shared ones (black), in the image's own units. Then transcripts a window against those of
    the segmented cell, and the cells left out by reason (only where the object still has one report).

    Parameters
    ----------
    adata
        Paired cells, rescaled or not.
    groupby
        Column of the slides; ``None``: the one that intensities were rescaled by, if any.
    n_cells
        Cells a group to look at (drawn at random).
    seed
        Of the draw.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.
    """
    check_range("n_cells", n_cells, low=1)
    images = check_key(adata, "obsm", _keys.CROPS)
    about = _keys.entry(adata, _keys.CROPS)
    limits = about.get("limits")
    if limits is not None and not (
        hasattr(limits, "get") and {"low", "high", "shared_low", "shared_high"} <= set(limits)
    ):
        msg = "uns['crops']['limits'] are not what sst.pp.rescale_intensity writes: it keeps low, high, shared_low and shared_high."
        raise KeyError(msg)
    if groupby is None and limits is not None:
        groupby = str(limits.get("groupby", "")) or None
    groups = ["all"] if groupby is None else check_groups(adata, groupby)
    palette = {"all": "#0072B2"} if groupby is None else group_colors(adata, groupby)
    member = np.full(adata.n_obs, "all") if groupby is None else adata.obs[groupby].astype(str).to_numpy()
    rng = np.random.default_rng(seed)
    rows = {}
    for group in groups:
        here = np.flatnonzero(member == group)
        rows[group] = np.sort(rng.choice(here, min(n_cells, len(here)), replace=False))
    names = [str(c) for c in about.get("channels", range(images.shape[1]))]
    report = about.get("report", {})
    # joined slides keep of their reports only what is the same in all: that is no report any more
    lost = {text: int(report[key]) for key, text in _REASONS.items()} if {"kept", *_REASONS} <= set(report) else {}
    kind = np.dtype(getattr(adata.X, "dtype", object))
    if not np.issubdtype(kind, np.number):
        msg = f"X holds values of type {kind}: numbers are needed."
        raise TypeError(msg)
    segmented = _keys.SEGMENTED in adata.layers
    with style():
        figure, axes = make_axes(None, len(names) + 1 + bool(lost), panel=(2.9, 2.5))
        extremes = {group: _extremes(images, rows[group], limits) for group in groups}
        for c, name in enumerate(names):
            _intensities(axes[c], c, name, extremes, limits, palette)
        ax = axes[len(names)]
        if groupby is not None:
            handles = [ax.plot([], [], color=palette[g], linewidth=4, label=g)[0] for g in groups]
            ax.legend(handles=handles, loc="upper left")
        total = np.asarray(adata.X.sum(axis=1)).ravel()
        own = np.asarray(adata.layers[_keys.SEGMENTED].sum(axis=1)).ravel() if segmented else None
        for group in groups:
            at = rows[group]
            if own is not None:
                ax.plot(own[at], total[at], ".", markersize=2, alpha=0.4, color=palette[group], rasterized=True)
            else:
                ax.hist(total[at], bins=40, histtype="step", color=palette[group])
        if own is not None:
            top = max(float(own.max()), 1.0)
            ax.plot([0, top], [0, top], color="black", linewidth=0.7, linestyle=":")
            ax.set(xlabel="counts, segmented cell", ylabel="counts, window", title="Expression")
        else:
            ax.set(xlabel="counts, window", ylabel="cells", title="Expression")
        if lost:
            ax = axes[-1]
            bars = {"kept": int(report["kept"]), **lost}
            ax.barh(list(bars), list(bars.values()), color="#9A9A9A")
            for i, value in enumerate(bars.values()):
                ax.text(value, i, f" {value:,}", va="center", fontsize="small")
            ax.invert_yaxis()
            ax.margins(x=0.25)
            ax.set(xlabel="cells", title="Cells")
    return finish(figure, axes, return_fig=return_fig)


def _extremes(images: Any, rows: np.ndarray, limits: Any) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum of each crop, n x c, in the units of the image as it was read."""
    from sst.io import crop_reader

    reader = crop_reader(images)
    low, high = [], []
    for start in range(0, len(rows), 256):
        part = reader.take(rows[start : start + 256])
        flat = part.reshape(*part.shape[:2], -1)
        low.append(flat.min(axis=2).astype(float))
        high.append(flat.max(axis=2).astype(float))
    both = np.concatenate(low), np.concatenate(high)
    if limits is None:
        return both
    a, b = (np.asarray(limits[k], dtype=float) for k in ("shared_low", "shared_high"))
    return both[0] / 255 * (b - a) + a, both[1] / 255 * (b - a) + a


def _shared(limits: Any, side: str, group: str, c: int) -> float:
    """A slide's limit on the scale that the slides share: there, backgrounds are one where slides have gains."""
    value, low = float(limits[side][group][c]), float(limits["low"][group][c])
    return value if "gain" not in limits else limits["shared_low"][c] + (value - low) * limits["gain"][group][c]


def _intensities(ax: Any, c: int, name: str, extremes: dict, limits: Any, palette: dict[str, str]) -> None:
    values = np.concatenate([np.r_[low[:, c], high[:, c]] for low, high in extremes.values()])
    top = float(np.quantile(values, 0.995))
    if limits is not None:
        top = max(top, float(limits["shared_high"][c]))
    bottom = float(values.min())
    bins = np.linspace(bottom, top * 1.05 if top > bottom else bottom + 1, 50)
    for group, (low, high) in extremes.items():
        ax.hist(low[:, c], bins=bins, color=palette[group], alpha=0.3, density=True)
        ax.hist(high[:, c], bins=bins, histtype="step", color=palette[group], density=True)
        kept = group if limits is None or group in limits["low"] else _keys.column_name(group)
        if limits is not None and kept in limits["low"]:
            for side in ("low", "high"):
                ax.axvline(_shared(limits, side, kept, c), color=palette[group], linestyle="--", linewidth=0.9)
    if limits is not None:
        for side in ("shared_low", "shared_high"):
            ax.axvline(limits[side][c], color="black", linewidth=0.7)
    heights = sorted(p.get_height() for p in ax.patches if hasattr(p, "get_height"))
    if heights and heights[-1] > 0:  # minima lie close together: leave the maxima visible
        tallest = max(np.histogram(high[:, c], bins=bins, density=True)[0].max() for _, high in extremes.values())
        ax.set_ylim(0, min(heights[-1], 3 * tallest) * 1.1)
    ax.set(title=name, xlabel="intensity", yticks=[], ylabel="crops")
