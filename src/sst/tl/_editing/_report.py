"""What an edit did, in numbers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from sst import __version__
from sst._settings import logger
from sst.editing import Fitted, manifold_distances, moment_error, take_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sst.editing import EditStats

    from ._plan import Direction

MOST_CELLS = 5000
"""Cells of a group that errors of moments and distances are measured on."""
OFF_MANIFOLD = 0.5
"""A warning is logged if more than this share of the edited cells lies off the target's real cells."""


def edit_report(
    X: Any,
    directions: Sequence[Direction],
    fitted: Sequence[Fitted],
    stats: Sequence[EditStats],
    *,
    genes: np.ndarray | None,
    var_names: Sequence[str],
    strength: float,
    clip: bool,
    seed: int,
    target_means: Sequence[np.ndarray | None],
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
    names = np.asarray(var_names, dtype=str) if genes is None else np.asarray(var_names, dtype=str)[genes]
    for direction, edit, counted, mean in zip(directions, fitted, stats, target_means, strict=True):
        row: dict[str, Any] = {"source": direction.source, "target": direction.target or ""}
        row["n_fit_source"], row["n_fit_target"] = int(direction.fit_source.sum()), int(direction.fit_target.sum())
        row.update(counted.summary())
        pick = [_sample(mask, seed) for mask in (direction.cells, direction.fit_target)]
        source, target = (take_rows(X, index) for index in pick)
        here = slice(None) if genes is None else genes
        edited = {
            clipped: edit_rows(edit, X, pick[0], genes=genes, strength=strength, clip=clipped)
            for clipped in {False, clip}
        }
        if direction.target is not None:
            wanted = target[:, here]
            row["moment_error_before"] = moment_error(source[:, here], wanted)
            row["moment_error_unclipped"] = moment_error(edited[False][:, here], wanted)
            row["moment_error_after"] = moment_error(edited[clip][:, here], wanted)
        row.update(manifold_distances(edited[clip], source, target, seed=seed))
        whole = genes is None and direction.target is not None  # an edit of some genes is not meant to reach the target
        share, distance = (
            row[k] for k in (("off_manifold", "distance_edited") if whole else ("off_data", "distance_data"))
        )
        if share > OFF_MANIFOLD:
            logger.warning(
                "edit %s: %.0f %% of the edited cells lie farther from real %s than 95 %% of real cells do "
                "(median distance %.3g, real to real %.3g): their images are extrapolations.",
                direction.name,
                100 * share,
                "target cells" if whole else "cells",
                distance,
                row["distance_floor"],
            )
        rows.append(row)
        cells = max(counted.n_cells, 1)
        columns: dict[str, Any] = {"source": direction.source, "target": direction.target or "", "gene": names}
        columns["mean_source"] = counted.total_before / cells
        if direction.target is not None:
            columns["mean_target"] = (target.mean(axis=0) if mean is None else mean)[here]
        columns["mean_edited"] = counted.total_after / cells
        tables.append(pd.DataFrame(columns))
    genes_table = pd.concat(tables, ignore_index=True)
    genes_table.index = genes_table.index.astype(str)
    return {
        "directions": pd.DataFrame(rows, index=[str(k) for k in range(len(rows))]),
        "genes": genes_table,
        "expression_hash": expression_hash(X),
        "version": __version__,
    }


def expression_hash(X: Any) -> str:
    """Short hash of a matrix in memory; empty for one that is not (reading all of it is not worth it)."""
    if sp.issparse(X):
        parts = [X.indptr.astype(np.int64), X.indices.astype(np.int32), X.data.astype(np.float32)]
    elif isinstance(X, np.ndarray):
        parts = [np.ascontiguousarray(X, dtype=np.float32)]
    else:
        return ""
    digest = hashlib.blake2b(str(X.shape).encode(), digest_size=8)
    for part in parts:
        digest.update(memoryview(part).cast("B") if part.size else b"")
    return digest.hexdigest()


def _sample(mask: np.ndarray, seed: int) -> np.ndarray:
    index = np.flatnonzero(mask)
    if len(index) > MOST_CELLS:
        index = np.sort(np.random.default_rng(seed).choice(index, MOST_CELLS, replace=False))
    return index


def edit_rows(
    edit: Fitted, X: Any, index: np.ndarray, *, genes: np.ndarray | None, strength: float, clip: bool
) -> np.ndarray:
    """Some rows of ``X`` edited (dense, float64), with row numbers as in the whole."""
    return _Numbered(edit, index).apply(
        take_rows(X, index), genes=genes, strength=strength, clip=clip, dtype=np.float64
    )


class _Numbered(Fitted):
    """An edit applied to chosen rows that keep their numbers (another method's layer is looked up by them)."""

    def __init__(self, edit: Fitted, index: np.ndarray) -> None:
        self.edit = edit
        self.index = index

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        return self.edit.values(block, old, genes, self.index[rows])
