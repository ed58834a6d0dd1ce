"""Losses and distances over a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._arguments import checked

from ._drawing import PALETTE, style
from ._training_quality import draw_quality

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

WIDE = 8.0  # largest / smallest distance from which on the axis is logarithmic
DISTANCES = {"distance": "images and expression", "distance_images": "images"}


@checked
def training(
    model: Any,
    *,
    losses: list[str] | None = None,
    smooth: int = 5,
    axes: Any = None,
    save: str | Path | None = None,
) -> np.ndarray:
    """Draw what a training recorded: losses on the left, quality on held-out cells on the right.

    For a GAN that is the distance to held-out cells (the paper's Figure S4), for an inversion PSNR and SSIM of their reconstructions
    (Figure S5), for a CLIP retrieval against chance.

    Parameters
    ----------
    model
        A trained model, its ``history`` (a DataFrame), or the folder of a model or of a running training.
    losses
        Columns to draw (``None``: every ``<phase>/loss`` but the regularisers').
    smooth
        Running mean over so many rows (1: none); single rows stay as a pale line.
    axes
        Two axes to draw on.
    save
        File to save the figure to.

    Returns
    -------
    The two axes.

    Raises
    ------
    KeyError
        A loss was not recorded.
    FileNotFoundError
        The folder holds no metrics.
    """
    import matplotlib.pyplot as plt

    history = _history(model)
    known = [c for c in history.columns if c.endswith("/loss")]
    wanted = losses or [c for c in known if c.split("/")[0] not in {"R1", "PL"}] or known
    missing = [c for c in wanted if c not in history.columns]
    if missing:
        msg = f"losses={missing} were not recorded. Possible: {sorted(history.columns)}."
        raise KeyError(msg)
    with style():
        if axes is None:
            _, axes = plt.subplots(1, 2, figsize=(7.2, 2.6), layout="constrained")
        left, right = np.ravel(axes)[:2]
        for i, column in enumerate(wanted):
            values = history[column].dropna()
            colour = PALETTE[i % len(PALETTE)]
            left.plot(values.index, values, color=colour, alpha=0.25, lw=0.8)
            mean = values.rolling(smooth, min_periods=1, center=True).mean()
            left.plot(
                values.index,
                mean,
                "o-" if len(mean) == 1 else "-",
                ms=3,
                color=colour,
                lw=1.4,
                label=column.removesuffix("/loss"),
            )
        left.set(xlabel="iteration", ylabel="loss")
        if wanted:
            left.legend()
        if not draw_quality(right, history):
            _distances(right, history)
        if save is not None:
            left.figure.savefig(save)
    return np.array([left, right])


def _distances(ax: Axes, history: pd.DataFrame) -> None:
    """Distances, on a log axis if they fall far, the smallest marked."""
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    drawn = [c for c in DISTANCES if c in history.columns and history[c].notna().any()]
    for i, column in enumerate(drawn):
        values = history[column].dropna()
        ax.plot(values.index, values, "o-", ms=2.5, lw=1.2, color=PALETTE[i], label=DISTANCES[column])
        best = values.idxmin()
        ax.plot([best], [values[best]], "o", ms=7, mfc="none", color=PALETTE[i])
        ax.annotate(
            f"{values[best]:.3g}",
            (best, values[best]),
            xytext=(0, 8 if i == 0 else -14),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    if drawn:
        values = history[drawn].to_numpy(dtype=float)
        if np.nanmin(values) > 0 and np.nanmax(values) > WIDE * np.nanmin(values):
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(ScalarFormatter())
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.margins(y=0.15)
        ax.legend()
    else:
        ax.text(0.5, 0.5, "no evaluation yet", transform=ax.transAxes, ha="center", color="0.5")
    ax.set(xlabel="iteration", ylabel="distance to held-out cells")


def _history(model: Any) -> pd.DataFrame:
    import pandas as pd

    if isinstance(model, pd.DataFrame):
        return model
    if hasattr(model, "history"):
        return model.history
    if not isinstance(model, str | Path):
        msg = f"model={model!r}: expected a trained model, its history or a folder, got {type(model).__name__}."
        raise TypeError(msg)
    folder = Path(model)
    for path in (folder / "training" / "metrics.csv", folder / "metrics.csv"):
        if path.exists():
            long = pd.read_csv(path).drop_duplicates(["iteration", "name"], keep="last")
            return long.pivot(index="iteration", columns="name", values="value")
    if (folder / "history.csv").exists():
        return pd.read_csv(folder / "history.csv", index_col=0)
    msg = f"{folder} holds no metrics: neither training/metrics.csv nor history.csv is there."
    raise FileNotFoundError(msg)
