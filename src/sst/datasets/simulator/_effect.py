"""The true effect of an edit of expression on a simulated tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._config import MARKER_CHANNEL
from ._features import features_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._slides import Slides


def true_effect(
    tissue: Slides, genes: str | Iterable[str] | None, source: str, target: str, *, size: int = 64
) -> pd.DataFrame:
    """What an edit truly does to the cells of ``source``: the mean of each feature before and after.

    Parameters
    ----------
    tissue
        The tissue.
    genes
        Genes whose latent expression is carried to the distribution of ``target``; ``None``: all.
    source, target
        Groups, or slides.
    size
        Side of the window in which the marker's intensity is averaged, px.

    Returns
    -------
    One row a feature: ``marker`` (mean CD298/B2M intensity of the windows that lie inside their field of view, grey levels, no
    noise, brightness and offset included), ``marker_level`` and the other features as drawn (``nucleus_area`` in um2). Columns:
    ``source``, ``edited``, ``target`` (means), ``change`` (edited - source), ``gap`` (target - source), ``share`` (change / gap).
    """
    edited = tissue.counterfactual(genes, source, target)
    rows = {}
    means = {
        "source": window_means(tissue, source, size),
        "edited": window_means(edited, source, size),
        "target": window_means(tissue, target, size),
    }
    rows["marker"] = {name: float(np.nanmean(values)) for name, values in means.items()}
    mine, other = tissue.members(source), tissue.members(target)
    for feature in features_of(tissue.config):
        before, after = tissue.causes[feature].to_numpy(float), edited.causes[feature].to_numpy(float)
        row = {"source": before[mine].mean(), "edited": after[mine].mean(), "target": before[other].mean()}
        rows["marker_level" if feature == "marker" else feature] = {name: float(value) for name, value in row.items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table["change"] = table["edited"] - table["source"]
    table["gap"] = table["target"] - table["source"]
    table["share"] = table["change"] / table["gap"]
    table.index.name = "feature"
    return table


def window_means(tissue: Slides, group: str, size: int, channel: str = MARKER_CHANNEL) -> np.ndarray:
    """Mean noise-free intensity of each cell's window, in the order of ``causes``; NaN where it leaves the field of view."""
    from sst.io.crops import window_corners

    out = np.full(len(tissue.causes), np.nan)
    mine = tissue.members(group)
    fields = tissue.causes[mine][["donor", "fov"]].drop_duplicates()
    for slide, fov in fields.itertuples(index=False):
        view = tissue.draw(slide, fov, channels=(channel,), noise=False, transcripts=False)
        side = view.images.shape[1]
        total = np.zeros((side + 1, side + 1))
        np.cumsum(np.cumsum(view.images[0], axis=0, dtype=float), axis=1, out=total[1:, 1:])
        x, y = window_corners(view.causes[["x", "y"]].to_numpy(), size).T
        inside = (x >= 0) & (y >= 0) & (x + size <= side) & (y + size <= side)
        x, y = x[inside], y[inside]
        sums = total[y + size, x + size] - total[y, x + size] - total[y + size, x] + total[y, x]
        out[tissue.rows(slide, fov)[inside]] = sums / size**2
    return out[mine]
