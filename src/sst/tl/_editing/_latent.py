"""What an image model is shown of an edit, where counts are taken for what they are: noisy readings of expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import _keys
from sst._settings import logger
from sst._validate import check_key
from sst.editing import RELIABLE, LatentExpression, fit_latent, rows_of, take_rows

if TYPE_CHECKING:
    from anndata import AnnData

    from ._request import Edit

MUCH = 8.0
"""A warning is logged if more than so many times the asked displacement has to be shown."""
_BLOCK = 4096


def shown_layer(key: str) -> str:
    """Layer with what the image model was shown."""
    return f"{key}_shown"


def learn_latent(adata: AnnData, edit: Edit, adjusted_for: str = "") -> LatentExpression:
    """Latent expression and noise of the cells that an edit is learnt from.

    What sets the edit's groups apart is expression; for a model that was trained without the differences of slides (``adjusted_for``: their
    column) covariances are those within slides.
    """
    group = np.zeros(adata.n_obs, dtype=int)
    for number, direction in enumerate(edit.directions):
        group[direction.fit_source & (group == 0)] = 2 * number + 1
        group[direction.fit_target & (group == 0)] = 2 * number + 2
    learn = group > 0
    if adjusted_for:
        slides = check_key(adata, "obs", adjusted_for, name="slides").astype(str).to_numpy()[learn]
        return fit_latent(rows_of(edit.X, learn), slides, between=False)
    return fit_latent(rows_of(edit.X, learn), group[learn])


def show_latent(
    adata: AnnData, edit: Edit, edited: Any, latent: LatentExpression, *, key: str, as_asked: bool = False
) -> dict[str, Any]:
    """Write ``layers[f"{key}_shown"]`` (float32, n x p, above -1) and ``var[f"{key}_reliability"]``.

    ``as_asked``: the model answers to latent expression, and is shown the edit as it is.

    Returns
    -------
    For the report: ``directions`` (DataFrame: penalty, share of the displacement that the inferred expression makes, what strays,
    how much more has to be shown than is asked) and ``reliability`` (DataFrame: each edited gene's).

    Raises
    ------
    ValueError
        Genes that were named are mostly counting noise, and ``force`` was not given.
    """
    reliability = pd.Series(latent.reliability, index=adata.var_names)
    _keys.write_slot(adata, "var", f"{key}_reliability", reliability.to_numpy())
    chosen = reliability[edit.gene_names].sort_values(kind="stable")
    poor = chosen[chosen < RELIABLE]
    if len(poor) and edit.request.genes is not None and not edit.request.force:
        named = ", ".join(f"{gene} {value:.2f}" for gene, value in poor[:8].items())
        more = f" and {len(poor) - 8} more" if len(poor) > 8 else ""
        msg = (
            f"latent=True: the counts of {named}{more} are mostly noise (share of their variance that is not, at least {RELIABLE} "
            "is needed): what they are of a cell is not known well enough. Leave them out, or force=True."
        )
        raise ValueError(msg)
    table = pd.DataFrame({"gene": chosen.index, "reliability": chosen.to_numpy()})
    if as_asked:
        _keys.write_slot(adata, "layers", shown_layer(key), take_rows(edited, slice(None), np.float32))
        return {"directions": pd.DataFrame(), "reliability": table, "n_cells": latent.n_cells}
    shown = take_rows(edit.X, slice(None), np.float32)
    rows = []
    for direction in edit.directions:
        index = np.flatnonzero(direction.cells)
        sample = index if len(index) <= _BLOCK else np.random.default_rng(0).choice(index, _BLOCK, replace=False)
        sample = np.sort(sample)
        asked = latent.standardise(take_rows(edited, sample)) - latent.standardise(take_rows(edit.X, sample))
        found = latent.shift(asked)
        for start in range(0, len(index), _BLOCK):
            part = index[start : start + _BLOCK]
            shown[part] = latent.show(take_rows(edit.X, part), take_rows(edited, part), penalty=found.penalty)
        row = {"source": direction.source, "target": direction.target or "", **found._asdict()}
        row.pop("values")
        rows.append(row)
        if found.amplified > MUCH:
            logger.warning(
                "edit %s: to move the inferred expression as asked, image models are shown %.1f times the displacement; they "
                "extrapolate.",
                direction.name,
                found.amplified,
            )
    _keys.write_slot(adata, "layers", shown_layer(key), shown)
    return {"directions": pd.DataFrame(rows), "reliability": table, "n_cells": latent.n_cells}
