"""PSNR and SSIM, or retrieval, of held-out cells over a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._drawing import PALETTE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def draw_quality(ax: Axes, history: pd.DataFrame) -> bool:
    """Draw what an inversion (PSNR left, SSIM right; the paper's Figure S5) or a CLIP (retrieval) recorded.

    Single channels are thin lines. Returns whether there was anything to draw.
    """
    if "psnr" in history.columns:
        _reconstruction(ax, history)
        return True
    if "image_to_expression_top10" in history.columns:
        _retrieval(ax, history)
        return True
    return False


def _reconstruction(ax: Axes, history: pd.DataFrame) -> None:
    twin = ax.twinx()
    twin.spines["right"].set_visible(True)
    for panel, name, colour in ((ax, "psnr", PALETTE[0]), (twin, "ssim", PALETTE[1])):
        whole = history[name].dropna()
        panel.plot(whole.index, whole, "o-", ms=2.5, lw=1.4, color=colour, label=name.upper())
        single = [c for c in history.columns if c.startswith(f"{name} ")]
        for column, dash in zip(single, ("--", ":", "-."), strict=False):
            values = history[column].dropna()
            panel.plot(values.index, values, dash, lw=0.8, color=colour, alpha=0.7)
            if len(values):
                panel.annotate(
                    column.split(" ", 1)[1],
                    (values.index[-1], values.iloc[-1]),
                    xytext=(-2, 2),
                    textcoords="offset points",
                    ha="right",
                    fontsize=6,
                    color=colour,
                )
        unit = "PSNR (dB)" if name == "psnr" else "SSIM"
        panel.set_ylabel(unit, color=colour)
    ax.set(xlabel="iteration", title="held-out reconstruction")


def _retrieval(ax: Axes, history: pd.DataFrame) -> None:
    for column, colour, label in (
        ("image_to_expression_top10", PALETTE[0], "image to expression"),
        ("expression_to_image_top10", PALETTE[1], "expression to image"),
    ):
        values = 100 * history[column].dropna()
        ax.plot(values.index, values, "o-", ms=2.5, lw=1.4, color=colour, label=label)
    chance = 100 * history["chance_top10"].dropna()
    ax.plot(chance.index, chance, "--", lw=1, color="0.5", label="chance")
    ax.set(xlabel="iteration", ylabel="own partner in top 10 (%)", title="held-out retrieval", ylim=(0, None))
    ax.legend()
