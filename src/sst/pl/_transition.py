"""A transition as a grid of steps, or as a GIF or MP4."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_range, describe_options

from ._drawing import finish, make_axes, show_image, style, to_rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from xarray import DataArray

DIMS = ("step", "cell", "channel", "y", "x")


@checked
def transition(
    da: DataArray,
    *,
    cells: Sequence[str | int] | None = None,
    steps: int = 7,
    labels: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    save: str | Path | None = None,
    fps: float = 24.0,
    tile: int = 128,
    columns: int = 6,
    ax: Axes | Sequence[Axes] | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw how cells turn from t = 0 to t = 1.

    Parameters
    ----------
    da
        From :func:`sst.tl.transition`: dimensions step, cell, channel, y, x; uint8.
    cells
        Names or numbers of the cells shown; all (at most 24 in the grid) if left out.
    steps
        Steps shown in the grid, evenly spaced, the first and last among them.
    labels
        One name a cell shown.
    colors
        Tints of the channels.
    save
        ``.gif`` or ``.mp4``: an animation of all steps (forwards, a pause, backwards) with a bar that shows t; any other
        ending: the grid, as matplotlib saves it.
    fps
        Frames a second of the animation.
    tile
        Size of a cell in the animation, px.
    columns
        Cells a row in the animation.
    ax
        ``cells * steps`` axes to draw the grid on.
    return_fig
        Return the figure instead of its axes.

    Returns
    -------
    Axes of the grid, row after row (or the figure); the path for an animation.

    Raises
    ------
    KeyError
        A cell is not in ``da``.
    ValueError
        ``da`` has other dimensions, or the labels are not one a cell.
    RuntimeError
        ``.mp4`` without ffmpeg.
    """
    if not hasattr(da, "dims"):
        msg = f"da={da!r}: expected what sst.tl.transition returns, got {type(da).__name__}."
        raise TypeError(msg)
    if tuple(da.dims) != DIMS:
        msg = f"da has dimensions {tuple(da.dims)}; expected {DIMS}, as sst.tl.transition returns them."
        raise ValueError(msg)
    check_range("steps", steps, low=2)
    chosen = _choose(da, cells)
    names = [str(c) for c in (labels if labels is not None else da["cell"].to_numpy()[chosen])]
    if len(names) != len(chosen):
        msg = f"labels has {len(names)} entries for {len(chosen)} cells."
        raise ValueError(msg)
    light = bool(da.attrs.get(_keys.BRIGHTFIELD, False))
    suffix = Path(save).suffix.lower() if save is not None else ""
    if suffix in {".gif", ".mp4"}:
        frames = to_rgb(da.isel(cell=chosen).to_numpy(), colors, brightfield=light)  # step, cell, y, x, 3
        return _animate(frames, Path(save), fps, tile, columns)  # type: ignore[arg-type]
    if cells is None and len(chosen) > 24:
        chosen, names = chosen[:24], names[:24]
    keep = np.unique(np.linspace(0, da.sizes["step"] - 1, min(steps, da.sizes["step"])).round().astype(int))
    frames = to_rgb(da.isel(step=keep, cell=chosen).to_numpy(), colors, brightfield=light)
    t = da["step"].to_numpy()[keep]
    with style():
        figure, axes = make_axes(ax, len(keep) * len(chosen), ncols=len(keep), panel=(1.15, 1.15))
        for row, name in enumerate(names):
            for column, value in enumerate(t):
                panel = axes[row * len(keep) + column]
                show_image(panel, frames[column, row], title=f"t = {value:.2g}" if row == 0 else None)
                if column == 0:
                    panel.set_ylabel(name if len(name) <= 18 else name[:17] + "…", fontsize=6.5)
        if save is not None:
            figure.savefig(save, dpi=200)
    return finish(figure, axes, return_fig=return_fig)


def _choose(da: DataArray, cells: Sequence[str | int] | None) -> np.ndarray:
    names = [str(c) for c in da["cell"].to_numpy()]
    if cells is None:
        return np.arange(len(names))
    chosen = []
    for cell in cells:
        if isinstance(cell, (int, np.integer)) and -len(names) <= cell < len(names):
            chosen.append(int(cell) % len(names))
        elif str(cell) in names:
            chosen.append(names.index(str(cell)))
        else:
            msg = f"cells: {cell!r} is not a cell of this transition. {describe_options(names, cell)}"
            raise KeyError(msg)
    return np.asarray(chosen, dtype=int)


def _animate(frames: np.ndarray, path: Path, fps: float, tile: int, columns: int) -> Path:
    """Frames (step, cell, y, x, 3) as a GIF or MP4: there, a pause of half a second, back, a pause."""
    import imageio.v2 as imageio

    check_range("fps", fps, low=0, open_low=True)
    video = path.suffix.lower() == ".mp4"
    if video:
        try:
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError) as error:
            msg = f"writing {path.name} needs ffmpeg: install imageio-ffmpeg (pip install 'sst-editing[video]'), or save a .gif."
            raise RuntimeError(msg) from error
    n = len(frames)
    pause = [n - 1] * max(round(fps / 2), 1)
    order = [*range(n), *pause, *reversed(range(n)), *([0] * len(pause))]
    drawn = {k: _frame(frames[k], k / max(n - 1, 1), tile, columns) for k in range(n)}
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = (
        {"fps": fps, "macro_block_size": 2, "quality": 8} if video else {"duration": 1000 / fps, "loop": 0}
    )
    writer: Any = imageio.get_writer(path, **options)
    with writer:
        for k in order:
            writer.append_data(drawn[k])
    return path


def _frame(cells: np.ndarray, t: float, tile: int, columns: int, gap: int = 4, bar: int = 6) -> np.ndarray:
    """One frame: tiles on white, and a bar at the foot that is filled up to t. Sides are even, as MP4 wants."""
    from PIL import Image

    columns = max(1, min(columns, len(cells)))
    rows = -(-len(cells) // columns)
    width = columns * (tile + gap) + gap
    height = rows * (tile + gap) + gap + bar + gap
    out = np.full((height + height % 2, width + width % 2, 3), 255, dtype=np.uint8)
    for k, cell in enumerate(cells):
        y, x = gap + (k // columns) * (tile + gap), gap + (k % columns) * (tile + gap)
        out[y : y + tile, x : x + tile] = np.asarray(
            Image.fromarray(cell).resize((tile, tile), Image.Resampling.BICUBIC)
        )
    foot = height - gap - bar
    out[foot : foot + bar, gap : width - gap] = 225
    out[foot : foot + bar, gap : gap + round(t * (width - 2 * gap))] = (36, 86, 166)
    return out
