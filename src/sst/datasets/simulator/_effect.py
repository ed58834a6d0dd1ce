"""The true effect of an edit of expression on a simulated tissue."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._config import MARKER_CHANNEL
from ._features import features_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    known = {group: float(np.nanmean(window_means(tissue, group, size))) for group in (source, target)}
    return _effect(tissue, genes, source, target, known, size)


def true_effects(
    tissue: Slides,
    sets: Mapping[str, str | Iterable[str] | None] | None = None,
    *,
    directions: Iterable[tuple[str, str]] | None = None,
    size: int | None = None,
) -> pd.DataFrame:
    """What each of several edits truly does, in each direction.

    Parameters
    ----------
    tissue
        The tissue.
    sets
        Name and genes of each edit (``None``: all genes). By default those of :meth:`Tissue.gene_sets` and ``"all genes"``.
    directions
        Pairs of groups or slides, source and target; by default every pair of groups, both ways.
    size
        Side of the window in which the marker's intensity is averaged, px; ``None``: leave it out, and draw nothing.

    Returns
    -------
    One row an edit, direction and feature: ``genes`` (name of the set), ``source``, ``target``, ``feature``, ``before``, ``after``,
    ``there`` (means of the source's cells before and after, and of the target's), ``change``, ``gap``, ``share`` (change / gap).
    """
    sets = {**tissue.gene_sets(), "all genes": None} if sets is None else dict(sets)
    pairs = list(permutations(tissue.config.groups, 2) if directions is None else directions)
    known: dict[str, float] = {}
    if size is not None:
        known = {
            g: float(np.nanmean(window_means(tissue, g, size))) for g in dict.fromkeys(n for p in pairs for n in p)
        }
    parts = []
    for source, target in pairs:
        for name, genes in sets.items():
            part = _effect(tissue, genes, source, target, known, size).reset_index()
            part = part.rename(columns={"source": "before", "edited": "after", "target": "there"})
            parts.append(part.assign(genes=name, source=source, target=target))
    first = ["genes", "source", "target"]
    table = pd.concat(parts, ignore_index=True)
    return table[[*first, *(c for c in table if c not in first)]]


def _effect(
    tissue: Slides,
    genes: str | Iterable[str] | None,
    source: str,
    target: str,
    known: Mapping[str, float],
    size: int | None,
) -> pd.DataFrame:
    """The table of :func:`true_effect`; ``known`` are the window means of source and target, needed where ``size`` is given."""
    edited = tissue.counterfactual(genes, source, target)
    rows = {}
    if size is not None:
        after = float(np.nanmean(window_means(edited, source, size)))
        rows["marker"] = {"source": known[source], "edited": after, "target": known[target]}
    mine, other = tissue.members(source), tissue.members(target)
    for feature in features_of(tissue.config):
        own, new = tissue.causes[feature].to_numpy(float), edited.causes[feature].to_numpy(float)
        row = {"source": own[mine].mean(), "edited": new[mine].mean(), "target": own[other].mean()}
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
