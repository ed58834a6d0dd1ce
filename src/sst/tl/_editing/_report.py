"""What an edit did, in numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import __version__
from sst._settings import logger
from sst.editing import manifold_distances, moment_error, take_rows
from sst.tl._measuring import expression_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sst.editing import EditStats, Fitted

    from ._plan import Direction
    from ._request import Edit

MOST_CELLS = 5000
"""Cells of a group that errors of moments and distances are measured on."""
OFF_MANIFOLD = 0.5
"""A warning is logged if more than this share of the edited cells lies off the target's real cells."""


def edit_report(
    edit: Edit,
    fitted: Sequence[Fitted],
    stats: Sequence[EditStats],
    *,
    target_means: Sequence[np.ndarray | None],
    seed: int,
) -> dict[str, Any]:
    """Report of an edit.

    Returns
    -------
    ``"directions"``: DataFrame, one row per direction: ``source``, ``target``, ``n_fit_source``, ``n_fit_target``, what
    :meth:`sst.editing.EditStats.summary` has, ``moment_error_before``, ``_unclipped``, ``_after``, and what
    :func:`sst.editing.manifold_distances` returns. ``"genes"``: DataFrame, one row per direction and edited gene: means
    of the source, the target and the edited cells. ``"expression_hash"``: of the counts; ``"version"``: of the package.
    """
    rows, tables = [], []
    for direction, fit, counted, mean in zip(edit.directions, fitted, stats, target_means, strict=True):
        target = take_rows(edit.X, _sample(direction.fit_target, seed))
        row: dict[str, Any] = {"source": direction.source, "target": direction.target or ""}
        row["n_fit_source"], row["n_fit_target"] = int(direction.fit_source.sum()), int(direction.fit_target.sum())
        row |= counted.summary() | _hit(edit, direction, fit, target, seed)
        _warn_off_data(edit, direction, row)
        rows.append(row)
        cells = max(counted.n_cells, 1)
        columns: dict[str, Any] = {"source": direction.source, "target": direction.target or ""}
        columns["gene"] = edit.gene_names
        columns["mean_source"] = counted.total_before / cells
        if direction.target is not None:
            columns["mean_target"] = (target.mean(axis=0) if mean is None else mean)[_columns(edit)]
        columns["mean_edited"] = counted.total_after / cells
        tables.append(pd.DataFrame(columns))
    genes_table = pd.concat(tables, ignore_index=True)
    genes_table.index = genes_table.index.astype(str)
    return {
        "directions": pd.DataFrame(rows, index=[str(k) for k in range(len(rows))]),
        "genes": genes_table,
        "expression_hash": expression_hash(edit.X),
        "version": __version__,
    }


def _columns(edit: Edit) -> Any:
    return slice(None) if edit.options.genes is None else edit.options.genes


def _hit(edit: Edit, direction: Direction, fit: Fitted, target: np.ndarray, seed: int) -> dict[str, float]:
    """Errors of the second moments of the edited genes, and distances to real cells, on a sample of the cells."""
    index = _sample(direction.cells, seed)
    source = take_rows(edit.X, index)
    after = edit.options.rows(edit.X, fit, index)
    row = {}
    if direction.target is not None:
        unclipped = replace(edit.options, clip=False).rows(edit.X, fit, index) if edit.options.clip else after
        for name, values in (("before", source), ("unclipped", unclipped), ("after", after)):
            row[f"moment_error_{name}"] = moment_error(values[:, _columns(edit)], target[:, _columns(edit)])
    return row | manifold_distances(after, source, target, seed=seed)


def _warn_off_data(edit: Edit, direction: Direction, row: dict[str, Any]) -> None:
    whole = edit.options.genes is None and direction.target is not None  # some genes are not meant to reach the target
    share, distance = ("off_manifold", "distance_edited") if whole else ("off_data", "distance_data")
    if row[share] > OFF_MANIFOLD:
        logger.warning(
            "edit %s: %.0f %% of the edited cells lie farther from real %s than 95 %% of real cells do "
            "(median distance %.3g, real to real %.3g): their images are extrapolations.",
            direction.name,
            100 * row[share],
            "target cells" if whole else "cells",
            row[distance],
            row["distance_floor"],
        )


def _sample(mask: np.ndarray, seed: int) -> np.ndarray:
    index = np.flatnonzero(mask)
    if len(index) > MOST_CELLS:
        index = np.sort(np.random.default_rng(seed).choice(index, MOST_CELLS, replace=False))
    return index
