"""Cells where they lie in the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import _keys
from sst._arguments import checked
from sst._validate import check_key, check_range, describe_options, resolve_subset, resolve_table
from sst.io import crop_reader
from sst.io.crops import Region, cut_region, find_region, paint_region, read_tissue, rescale_like

from ._drawing import channel_colors, finish, group_colors, style, to_rgb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


@checked
def region(
    data: SpatialData | AnnData,
    *,
    adata: AnnData | None = None,
    fov: str | None = None,
    sample: str | None = None,
    bounds: Sequence[float] | None = None,
    color: str | None = None,
    fill: str | None = None,
    boxes: bool | None = None,
    key: str | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    channels: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    feather: float = 0.3,
    image: str | None = None,
    labels: str | None = None,
    alpha: float = 0.55,
    title: str | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Any:
    """A region of tissue with its cells: their types, their windows, or their images painted in place.

    The paper's figures i.1 (``color="cell_type"``), i.2 (``boxes=True``, ``key="crops"`` or ``key="generated"``) and i.3
    (``key="edited"``). Painted crops are drawn from
    the nearest centre where their windows overlap, and blend with each other and with the tissue around them.

    Parameters
    ----------
    data
        SpatialData with the tissue's image, or the paired cells alone (then there is only what their crops show).
    adata
        The paired cells of that SpatialData; ``None``: its table.
    fov, sample
        Field of view and slide, needed where there are several.
    bounds
        (x0, y0, x1, y1) in px of the image; ``None``: as far as the windows reach.
    color
        Column of ``obs`` or a gene: colour of the cells (names: a legend; numbers: a colour bar).
    fill
        How cells are coloured: ``"labels"`` (their area in the labels), ``"boxes"`` (their windows' outlines) or ``"dots"``; ``None``:
        labels if ``data`` has them, else dots; outlines when images are painted.
    boxes
        Draw the windows; ``None``: where they carry the colour.
    key
        Slot of images to paint in place: ``"crops"``, ``"generated"``, ``"edited"``, ...; ``None``: the tissue as it is (of paired
        cells alone: their crops).
    subset
        Paint and mark only these cells: mask, ``obs`` query or ``{column: [categories]}``.
    channels
        Channels to show; ``None``: all.
    colors
        A colour for each channel shown.
    feather
        Width of the seams of painted crops, as a share of half a window.
    image, labels
        Names of the elements; ``{fov}`` stands for the field of view.
    alpha
        Opacity of coloured cells.
    title
        Title of the axes.
    ax
        Axes to draw on.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, or the figure.
    """
    check_range("alpha", alpha, low=0, high=1)
    check_range("feather", feather, low=0, high=1)
    sdata: Any = data if hasattr(data, "images") else None
    cells = adata if adata is not None else resolve_table(data)
    if _keys.SPATIAL_PX not in cells.obsm:
        msg = 'the cells have no obsm["spatial_px"]: pass the paired cells of sst.pp.crop_cells as adata=...'
        raise KeyError(msg)
    tissue: Any
    picked: list[int]
    tissue, image_fov, picked = None, "", []
    px = np.asarray(cells.obsm[_keys.SPATIAL_PX])
    if sdata is not None:
        if fov is None and _keys.FOV in cells.obs and cells.obs[_keys.FOV].nunique() == 1:
            fov = str(cells.obs[_keys.FOV].iloc[0])
        tissue, picked, image_fov, px = read_tissue(sdata, cells, fov, image)
        place = find_region(
            cells, fov=fov, sample=sample, bounds=bounds, extent=tissue.shape[1:], by_fov=bool(image_fov), px=px
        )
    else:
        key = key or _keys.CROPS
        several = cells.uns.get(_keys.CROPS, {}).get("report", {}).get("frames", 1) > 1
        place = find_region(cells, fov=fov, sample=sample, bounds=bounds, by_fov=several)
    light = _keys.is_brightfield(cells)
    shows = resolve_subset(cells, subset)
    if key is not None:
        shows = shows & _keys.drawn(cells, key)
    chosen = place.rows[shows[place.rows]]
    base = None
    if tissue is not None:
        base = _tissue(cut_region(tissue, place, picked), cells, place, scaled=_is_scaled(cells, key))
    names = [str(c) for c in cells.uns.get(_keys.CROPS, {}).get("channels", [])]
    if key is not None:
        images = check_key(cells, "obsm", key)
        if getattr(images, "ndim", 0) != 4:
            msg = f"key={key!r}: obsm[{key!r}] holds no images (n x c x h x w)."
            raise ValueError(msg)
        ground = np.full((images.shape[1], *place.shape), 255 if light else 0, np.uint8)
        raw = None if images.dtype == np.uint8 else _stretch_of(tissue, picked, place, images, chosen)
        base = paint_region(images, place, chosen, ground if base is None else base, feather=feather, scale=raw)
    shown = _shown(names, channels, len(base) if base is not None else 0)
    with style():
        if ax is None:
            import matplotlib.pyplot as plt

            height, width = place.shape
            edge = 4.6 / max(height, width)
            _, ax = plt.subplots(
                figsize=(max(width * edge, 1.6) + 1.4, max(height * edge, 1.2) + 0.5), layout="constrained"
            )
        tints = colors if colors is not None else channel_colors(shown, brightfield=light)
        picture = to_rgb(np.asarray(base)[shown], tints)
        a, c, b, d = place.bounds
        ax.imshow(picture, extent=(a, b, d, c), interpolation="nearest" if max(picture.shape) < 1200 else "antialiased")
        ax.set(xlim=(a, b), ylim=(d, c), xlabel="x (px)", ylabel="y (px)")
        mask = None
        if sdata is not None and color is not None and fill in (None, "labels") and (key is None or fill == "labels"):
            mask = _labels(sdata, cells, place, labels, strict=fill == "labels")
        how = fill or ("labels" if mask is not None else "boxes" if key is not None else "dots")
        if how not in ("labels", "boxes", "dots"):
            msg = f"fill={fill!r} is not known. {describe_options(('labels', 'boxes', 'dots'), fill)}"
            raise ValueError(msg)
        shades = _shades(ax, cells, color, chosen) if color is not None else None
        if shades is not None and how == "labels" and mask is not None:
            _paint_labels(ax, mask, cells, chosen, shades, place, alpha)
        elif shades is not None and how == "dots":
            xy = px[chosen]
            ax.scatter(xy[:, 0], xy[:, 1], c=shades, s=16, alpha=max(alpha, 0.8), linewidths=0.4, edgecolors="white")
        if boxes or fill == "boxes" or (how == "boxes" and shades is not None and boxes is None):
            _outlines(ax, place, chosen, shades if how == "boxes" else None)
        _scale_bar(ax, cells, place, "black" if light else "white")
        if title is None:
            title = " ".join(t for t in (place.fov if image_fov or sdata is None else "", key or "") if t)
        ax.set_title(title)
    return finish(ax.figure, ax, return_fig=return_fig)  # type: ignore[arg-type]


def _stretch_of(tissue: Any, picked: list[int], place: Region, images: Any, chosen: np.ndarray) -> Any:
    """The map of raw crops to 0..255: that of the tissue around them, without one that of the crops shown."""
    if tissue is not None:
        pixels = cut_region(tissue, place, picked)
    else:
        pixels = np.moveaxis(crop_reader(images).take(chosen[:200]), 1, 0).reshape(images.shape[1], 1, -1)
    low, high = _limits(pixels)
    return lambda crops: np.clip((crops - low) / (high - low), 0, 1) * 255


def _is_scaled(cells: AnnData, key: str | None) -> bool:
    """Whether what is painted is 8-bit by the object's limits (then the tissue is shown on that scale too)."""
    array = cells.obsm.get(key or _keys.CROPS)
    return array is None or array.dtype == np.uint8


def _tissue(pixels: np.ndarray, cells: AnnData, place: Region, *, scaled: bool) -> np.ndarray:
    if scaled:
        groupby = cells.uns.get(_keys.CROPS, {}).get("limits", {}).get("groupby", "")
        group = cells.obs[groupby].iloc[place.rows[0]] if groupby in cells.obs and len(place.rows) else None
        like = rescale_like(pixels, cells, group)
        if like is not None:
            return like
    return pixels.astype(np.float32) if pixels.dtype == np.uint8 else _stretch(pixels)


def _limits(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.quantile(pixels, 0.005, axis=(1, 2)).reshape(-1, 1, 1).astype(np.float32)
    high = np.quantile(pixels, 0.998, axis=(1, 2)).reshape(-1, 1, 1).astype(np.float32)
    return low, np.maximum(high, low + 1e-6)


def _stretch(pixels: np.ndarray) -> np.ndarray:
    low, high = _limits(pixels)
    return np.clip((pixels - low) / (high - low), 0, 1) * 255


def _shown(names: list[str], channels: Sequence[str] | None, n: int) -> list[int]:
    if channels is None:
        return list(range(n))
    for name in channels:
        if name not in names:
            msg = f"channels: {name!r} is not a channel. {describe_options(names, name)}"
            raise KeyError(msg)
    return [names.index(c) for c in channels]


def _shades(ax: Axes, cells: AnnData, color: str, chosen: np.ndarray) -> np.ndarray:
    """RGBA of each chosen cell; draws the legend or the colour bar."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Patch

    if color in cells.obs:
        values = cells.obs[color].iloc[chosen]
    elif color in cells.var_names:
        column = cells.X[:, cells.var_names.get_loc(color)]
        values = pd.Series(np.asarray(column.todense() if hasattr(column, "todense") else column).ravel()[chosen])
    else:
        msg = f"color={color!r} is neither a column of obs nor a gene. {describe_options(cells.obs.columns, color)}"
        raise KeyError(msg)
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = values.to_numpy(dtype=float)
        scale = mpl.colors.Normalize(np.nanmin(numbers), np.nanquantile(numbers, 0.99) or 1.0, clip=True)
        ax.figure.colorbar(mpl.cm.ScalarMappable(scale, "viridis"), ax=ax, label=color, shrink=0.7)
        return mpl.colormaps["viridis"](scale(numbers))
    palette = group_colors(cells, color)
    names = values.astype(str).to_numpy()
    there = [name for name in palette if name in set(names)]
    ax.legend(
        handles=[Patch(facecolor=palette[name], label=name) for name in there],
        title=color,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0,
    )
    return np.array([to_rgba(palette.get(name, "#9A9A9A")) for name in names])


def _labels(
    sdata: Any, cells: AnnData, place: Region, labels: str | None, *, strict: bool
) -> tuple[np.ndarray, pd.Series] | None:
    """Labels of the region, and the label of each cell of the object; ``None`` where there are none that fit."""
    options = [labels.format(fov=place.fov)] if labels else [f"{place.fov}_labels", "labels", "cell_labels"]
    name = next((o for o in options if o in sdata.labels), None)
    column = next((c for c in ("label", "cell_labels", "label_id") if c in cells.obs), None)
    numbers = None
    if column is not None:
        numbers = cells.obs[column]
    elif "cell_id" in cells.obs:
        numbers = pd.to_numeric(cells.obs["cell_id"].astype(str), errors="coerce")
    if name is None or numbers is None or pd.Series(numbers).isna().all():
        if strict or labels:
            msg = f"fill='labels': no labels element fits the cells. {describe_options(sdata.labels.keys(), labels)}"
            raise KeyError(msg)
        return None
    element = sdata.labels[name]
    if hasattr(element, "children") and len(element.children):
        finest = element[next(iter(element.children))]
        element = finest[str(next(iter(finest.data_vars)))]
    return cut_region(element.data, place), pd.Series(numbers)


def _paint_labels(
    ax: Axes,
    mask: tuple[np.ndarray, pd.Series],
    cells: AnnData,
    chosen: np.ndarray,
    shades: np.ndarray,
    place: Region,
    alpha: float,
) -> None:
    area, numbers = mask
    found, where = np.unique(area, return_inverse=True)
    own = numbers.iloc[chosen].to_numpy(dtype=np.float64)
    table = np.zeros((len(found), 4))
    at = np.searchsorted(found, own)
    inside = (at < len(found)) & (found[np.minimum(at, len(found) - 1)] == own)
    table[at[inside]] = shades[inside]
    table[found == 0] = 0
    overlay = table[where.reshape(area.shape)]
    overlay[..., 3] *= alpha
    border = np.zeros(area.shape, bool)
    border[:-1] |= area[:-1] != area[1:]
    border[:, :-1] |= area[:, :-1] != area[:, 1:]
    overlay[border & (overlay[..., 3] > 0), 3] = 1.0
    a, c, b, d = place.bounds
    ax.imshow(overlay, extent=(a, b, d, c), interpolation="nearest")


def _outlines(ax: Axes, place: Region, chosen: np.ndarray, shades: np.ndarray | None) -> None:
    from matplotlib.collections import PolyCollection

    corners = place.corners[np.isin(place.rows, chosen)].astype(float)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * place.size
    edge: Any = "white" if shades is None else shades
    ax.add_collection(
        PolyCollection(
            corners[:, None] + square, facecolors="none", edgecolors=edge, linewidths=0.5 if shades is None else 0.9
        )
    )


def _scale_bar(ax: Axes, cells: AnnData, place: Region, color: str) -> None:
    """A bar of a round number of micrometres, where the pixel size is known."""
    about = cells.uns.get(_keys.CROPS, {})
    size = float(about.get("pixel_size", 0.0) or 0.0) * about.get("output_size", 0) / max(place.size, 1)
    if not size:
        return
    a, c, b, d = place.bounds
    length = next((n for n in (500, 200, 100, 50, 20, 10, 5) if n / size <= 0.3 * (b - a)), None)
    if length is None:
        return
    right, y = b - 0.03 * (b - a), d - 0.03 * (d - c)
    ax.plot([right - length / size, right], [y, y], color=color, linewidth=2.5, solid_capstyle="butt")
    ax.text(
        right - length / size / 2,
        y - 0.012 * (d - c),
        f"{length} µm",
        color=color,
        ha="center",
        va="bottom",
        fontsize=7,
    )
