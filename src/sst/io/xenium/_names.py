"""Feature matrices that lost their genes' names: the names found again from the transcripts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst._settings import logger

if TYPE_CHECKING:
    import dask.dataframe as dd
    from anndata import AnnData

    from sst.io._read_log import ReadLog

CONTROL_NAMES = r"^(BLANK|NegControl|antisense|Unassigned|Deprecated|Intergenic)"
_LEAST = 0.9  # of the counts must be explained


def name_features(table: AnnData, points: dd.DataFrame, log: ReadLog, *, min_qv: float = 20.0) -> None:
    """Name the columns of a feature matrix none of whose names occurs among the transcripts.

    The vendor sorts features by name. So the transcripts' genes, sorted, are aligned to the columns in order, leaving
    columns out where that explains the cells' counts better (genes without a transcript); counts of named genes are
    the vendor's own, a column that stays without a gene keeps its name. ``table`` is changed in place.

    Raises
    ------
    ValueError
        The aligned transcripts explain less than 90 % of the counts: matrix and transcripts do not belong together.
    """
    known = [str(c) for c in points["feature_name"].cat.categories]
    if set(known) & set(table.var_names) or not len(known):
        return
    genes = sorted(g for g in known if not re.match(CONTROL_NAMES, g))
    frame = points[["feature_name", "cell_id", "qv"]].compute()
    frame = frame[frame["qv"] >= min_qv]
    row = pd.Index(table.obs["cell_id"]).get_indexer(frame["cell_id"])
    column = pd.Index(genes).get_indexer(frame["feature_name"].astype(str))
    good = (row >= 0) & (column >= 0)
    counts = np.zeros((table.n_obs, len(genes)), dtype=np.float32)  # n x genes
    np.add.at(counts, (row[good], column[good]), 1)
    matrix = table.X.toarray().astype(np.float32)  # n x features
    share, at = 0.0, np.empty(0, dtype=int)
    if len(genes) <= table.n_vars:
        at = align(matrix, counts)
        share = float(np.minimum(matrix[:, at], counts).sum() / max(matrix.sum(), counts.sum(), 1))
    if share < _LEAST:
        msg = (
            f"the feature matrix ({list(table.var_names[:3])} ...) and the transcripts ({genes[:3]} ...) have no gene in common, "
            f"and the transcripts explain only {share:.0%} of its counts."
        )
        raise ValueError(msg)
    names = table.var_names.astype(object).to_numpy().copy()
    names[at] = genes
    table.var_names = pd.Index(names.astype(str))
    why = f"the matrix had no gene names; {len(genes)} of {table.n_vars} found from the transcripts, {share:.1%} of the counts agree"
    log.add("gene names", "used", len(genes), why)
    logger.warning("%s", why)


def align(matrix: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For each column of ``counts`` one of ``matrix``, rising, so that the summed absolute difference is least.

    Columns of ``matrix`` may be left out, at the cost of their sum. O(columns x columns) by dynamic programming.
    """
    p, m = matrix.shape[1], counts.shape[1]
    cost = np.stack([np.abs(matrix - counts[:, [g]]).sum(axis=0) for g in range(m)], axis=1)  # p x m
    skip = matrix.sum(axis=0)
    best = np.full((p + 1, m + 1), np.inf)
    best[:, 0] = np.concatenate([[0.0], np.cumsum(skip)])
    for j in range(1, p + 1):
        take, leave = best[j - 1, :-1] + cost[j - 1], best[j - 1, 1:] + skip[j - 1]
        best[j, 1:] = np.minimum(take, leave)
    at, g = np.zeros(m, dtype=int), m
    for j in range(p, 0, -1):
        if g and best[j, g] == best[j - 1, g - 1] + cost[j - 1, g - 1]:
            g -= 1
            at[g] = j - 1
    return at
