"""What all figures share: colours of groups, stars, brackets, violins, axes that are given or made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib import colors as mcolors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F", "#F0E442", "#000000"]
"""Colour-blind-safe colours (Okabe and Ito 2008, reordered: blue and vermilion first), used when ``uns`` holds none."""

RC: Any = {
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.dpi": 120,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}
GREY = "#9A9A9A"


def style() -> AbstractContextManager[None]:
    """The house style as a context: ``with style(): ...`` (leaves the user's own settings untouched afterwards)."""
    return mpl.rc_context(RC)


def palette(n: int) -> list[str]:
    """``n`` colours: the colour-blind-safe ones, then evenly spaced hues once those are used up."""
    if n <= len(PALETTE):
        return PALETTE[:n]
    hues = np.linspace(0, 1, n, endpoint=False)
    return [mcolors.to_hex(tuple(mcolors.hsv_to_rgb((h, 0.65, 0.8 if k % 2 else 0.6)))) for k, h in enumerate(hues)]


def group_colors(adata: AnnData, groupby: str, groups: Sequence[str] | None = None) -> dict[str, str]:
    """Colour of each group: ``adata.uns[f"{groupby}_colors"]`` (scanpy's slot) if it fits, else :func:`palette`.

    Nothing is written to ``adata``.
    """
    column = adata.obs[groupby]
    categories = [
        str(c) for c in (column.cat.categories if hasattr(column, "cat") else sorted(column.dropna().unique()))
    ]
    stored = adata.uns.get(f"{groupby}_colors")
    if stored is not None and len(stored) >= len(categories):
        chosen = [mcolors.to_hex(str(c)) for c in stored[: len(categories)]]
    else:
        chosen = palette(len(categories))
    colors = dict(zip(categories, chosen, strict=True))
    return colors if groups is None else {g: colors[g] for g in groups}


def lighten(color: str, amount: float = 0.5) -> str:
    """``color`` mixed with white: 0 leaves it, 1 is white."""
    rgb = np.asarray(mcolors.to_rgb(color))
    return mcolors.to_hex(tuple(rgb + (1 - rgb) * amount))


def stars(p: float) -> str:
    """Significance in stars, as in the paper: ``****`` P <= 1e-4, ``***`` <= 1e-3, ``**`` <= 1e-2, ``*`` <= 0.05, ``ns``."""
    if not np.isfinite(p):
        return "n/a"
    for limit, mark in ((1e-4, "****"), (1e-3, "***"), (1e-2, "**"), (0.05, "*")):
        if p <= limit:
            return mark
    return "ns"


def bracket(ax: Axes, left: float, right: float, y: float, text: str, *, height: float = 0.0) -> None:
    """A bracket from ``left`` to ``right`` at ``y`` (data units) with ``text`` above it, e.g. from :func:`stars`."""
    ax.plot([left, left, right, right], [y, y + height, y + height, y], color="black", linewidth=0.8, clip_on=False)
    ax.text((left + right) / 2, y + height, text, ha="center", va="bottom", fontsize="small", clip_on=False)


def violin(
    ax: Axes,
    values: Sequence[np.ndarray],
    positions: Sequence[float],
    colors: Sequence[str],
    *,
    width: float = 0.8,
    side: str = "both",
) -> None:
    """Violins with median and quartiles; ``side`` is ``"both"``, ``"low"`` (left half) or ``"high"`` (right half).

    A group without spread is drawn as a line, an empty one is left out; neither is an error.
    """
    for value, x, color in zip(values, positions, colors, strict=True):
        v = np.asarray(value, dtype=float)
        v = v[np.isfinite(v)]
        if v.size == 0:
            continue
        left = x - (0 if side == "high" else width / 2)
        right = x + (0 if side == "low" else width / 2)
        if v.size < 3 or np.ptp(v) == 0:
            ax.hlines(np.median(v), left, right, color=color, linewidth=2)
            continue
        bodies: Any = ax.violinplot([v], [x], widths=width, showextrema=False, points=120)["bodies"]
        body = bodies[0]
        vertices = body.get_paths()[0].vertices
        vertices[:, 0] = np.clip(vertices[:, 0], left, right)
        vertices[:, 1] = np.clip(vertices[:, 1], v.min(), v.max())
        body.set(facecolor=color, edgecolor=color, alpha=0.75, linewidth=0.6)
        low, middle, high = np.percentile(v, [25, 50, 75])
        nudge = {"both": 0.0, "low": -0.06, "high": 0.06}[side] * width
        ax.vlines(x + nudge, low, high, color="black", linewidth=2.2)
        ax.plot(
            [x + nudge],
            [middle],
            "o",
            markersize=3,
            markerfacecolor="white",
            markeredgecolor="black",
            markeredgewidth=0.6,
        )


def make_axes(
    ax: Axes | Sequence[Axes] | np.ndarray | None,
    n: int = 1,
    *,
    ncols: int = 4,
    panel: tuple[float, float] = (2.6, 2.4),
    sharey: bool = False,
) -> tuple[Figure, np.ndarray]:
    """The figure and ``n`` axes: the given ``ax`` (one, or a sequence of ``n``) or a new grid of panels.

    Parameters
    ----------
    ax
        Axes to draw on, or ``None`` for a new figure.
    n
        How many panels are needed.
    ncols
        Most columns of the grid.
    panel
        Width and height of a panel in inches.
    sharey
        Share the y axis in a new grid.

    Raises
    ------
    ValueError
        ``ax`` has another number of axes than panels.
    """
    if ax is not None:
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if len(axes) != n:
            msg = f"ax: this figure has {n} panels, but {len(axes)} axes were given."
            raise ValueError(msg)
        if not all(hasattr(one, "figure") for one in axes):
            msg = f"ax={ax!r}: expected axes of matplotlib."
            raise TypeError(msg)
        return axes[0].figure, axes
    import matplotlib.pyplot as plt

    ncols = max(1, min(ncols, n))
    nrows = -(-n // ncols)
    figure, grid = plt.subplots(
        nrows, ncols, figsize=(panel[0] * ncols, panel[1] * nrows), squeeze=False, sharey=sharey, layout="constrained"
    )
    axes = grid.ravel()
    for spare in axes[n:]:
        spare.set_axis_off()
    return figure, axes[:n]


def finish(figure: Figure, axes: np.ndarray | Axes, *, return_fig: bool = False) -> Any:
    """What a plotting function returns: the figure with ``return_fig``, else its axes (one, or an array of them)."""
    if return_fig:
        return figure
    flat = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    return flat[0] if len(flat) == 1 else flat


def show_image(ax: Axes, image: np.ndarray, *, title: str | None = None) -> None:
    """Draw an ``h x w x 3`` or ``h x w`` image without ticks."""
    ax.imshow(image, interpolation="nearest", cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        ax.set_title(title)


def channel_colors(shown: Sequence[int], *, brightfield: bool) -> list[str]:
    """A colour for each channel shown: its tint in a composite, or (``brightfield``) the colour that it is.

    One channel is grey; of fluorescence two are green and blue (marker, DAPI), more red, green, blue, yellow, magenta, cyan, grey.
    """
    if len(shown) == 1:
        return ["#FFFFFF"]
    if brightfield:
        return [["#FF0000", "#00FF00", "#0000FF"][k] for k in shown]
    more = ["#FF0000", "#00FF00", "#4040FF", "#FFFF00", "#FF00FF", "#00FFFF", "#808080"]
    return ["#00FF00", "#4040FF"] if len(shown) == 2 else [more[k % 7] for k in range(len(shown))]


def to_rgb(images: np.ndarray, colors: Sequence[str] | None = None, *, brightfield: bool = False) -> np.ndarray:
    """Colours of channels: ``... x c x h x w`` uint8 to ``... x h x w x 3`` uint8.

    Each channel is tinted with its colour (``None``: :func:`channel_colors`) and the tints are added; red, green and blue of a
    ``brightfield`` image come out as they are.
    """
    images = np.asarray(images)
    channels = images.shape[-3]
    if colors is None:
        colors = channel_colors(range(channels), brightfield=brightfield)
    if len(colors) != channels:
        msg = f"colors={list(colors)!r}: the images have {channels} channels, each needs one."
        raise ValueError(msg)
    tint = np.asarray([mcolors.to_rgb(c) for c in colors], dtype=np.float32)  # c x 3
    mixed = np.moveaxis(images.astype(np.float32), -3, -1) @ tint  # ... x h x w x 3
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
