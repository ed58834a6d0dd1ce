from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

from sst.pl._drawing import _style


@pytest.fixture
def adata() -> ad.AnnData:
    obs = pd.DataFrame({"condition": pd.Categorical(["n", "t", "n"])}, index=list("abc"))
    return ad.AnnData(np.zeros((3, 1), dtype=np.float32), obs=obs)


def test_colours_come_from_uns_if_there(adata: ad.AnnData) -> None:
    assert _style.group_colors(adata, "condition") == {"n": _style.PALETTE[0], "t": _style.PALETTE[1]}
    adata.uns["condition_colors"] = ["red", "blue"]
    assert _style.group_colors(adata, "condition", ["t"]) == {"t": "#0000ff"}


def test_palette_has_no_repeats() -> None:
    assert len(set(_style.palette(40))) == 40


@pytest.mark.parametrize(
    ("p", "mark"), [(1e-5, "****"), (1e-4, "****"), (1e-3, "***"), (0.01, "**"), (0.05, "*"), (0.2, "ns")]
)
def test_stars(p: float, mark: str) -> None:
    assert _style.stars(p) == mark


def test_axes_given_or_made() -> None:
    figure, axes = _style.make_axes(None, 5, ncols=3)
    assert len(axes) == 5
    assert len(figure.axes) == 6
    same, again = _style.make_axes(axes[0])
    assert same is figure
    assert again[0] is axes[0]
    with pytest.raises(ValueError, match="2 panels, but 1"):
        _style.make_axes(axes[0], 2)
    assert _style.finish(figure, axes, return_fig=True) is figure
    assert _style.finish(figure, axes[:1]) is axes[0]


def test_violin_takes_degenerate_groups() -> None:
    _, axes = _style.make_axes(None)
    _style.violin(axes[0], [np.array([]), np.ones(5), np.arange(9.0)], [0, 1, 2], ["r", "g", "b"], side="low")
    assert len(axes[0].collections) == 3  # a line; a body and its quartiles


def test_composite_of_channels() -> None:
    images = np.zeros((2, 2, 4, 4), dtype=np.uint8)
    images[:, 0] = 200
    rgb = _style.to_rgb(images)
    assert rgb.shape == (2, 4, 4, 3)
    assert (rgb[..., 1] == 200).all()
    assert (rgb[..., [0, 2]] == 0).all()
