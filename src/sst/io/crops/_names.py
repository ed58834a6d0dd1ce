"""Genes of a table against those that transcripts name: which match nothing, and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from sst._settings import logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

_SHOWN = 8


def check_names(table: AnnData, counts: np.ndarray, others: Iterable[str]) -> int:
    """Warn of genes that the table has counted and no transcript names.

    Parameters
    ----------
    table
        Its genes and counts.
    counts
        Transcripts that name each gene, p long.
    others
        Names among the transcripts that are no gene of the table.

    Returns
    -------
    How many genes that is.

    Raises
    ------
    ValueError
        No transcript names a gene of the table.
    """
    others = sorted(set(others))
    if not counts.any() and others:
        msg = (
            f"no transcript names a gene of the table: the table's begin with {list(map(str, table.var_names[:5]))}, the "
            f"transcripts' with {others[:5]}.{_hint(table, np.arange(table.n_vars), others)}"
        )
        raise ValueError(msg)
    silent = np.flatnonzero(counts == 0)
    if not len(silent) or table.X is None:
        return 0
    block = table.X[:, silent]
    block = block.compute() if hasattr(block, "compute") else block
    lost = silent[np.asarray(block.sum(axis=0)).ravel() > 0]
    if len(lost):
        logger.warning(
            "%d of %d genes have counts in the table and no transcript of their name: %s%s.%s",
            len(lost),
            table.n_vars,
            ", ".join(map(str, table.var_names[lost[:_SHOWN]])),
            " ..." if len(lost) > _SHOWN else "",
            _hint(table, lost, others),
        )
    return len(lost)


def _hint(table: AnnData, lost: np.ndarray, others: list[str]) -> str:
    """What would make names match: a column of ``var``, or undoing what R does to names."""
    known = set(others)
    matches = {c: int(table.var[c].iloc[lost].astype(str).isin(known).sum()) for c in table.var.columns}
    best = max(matches, key=lambda c: matches[c], default=None)
    if best is not None and matches[best]:
        return f" var[{best!r}] has {matches[best]} of them: table.var_names = table.var[{best!r}]."
    mangled = {re.sub(r"[^A-Za-z0-9.]", ".", name): name for name in others}
    pairs = [(str(g), mangled[str(g)]) for g in table.var_names[lost] if str(g) in mangled]
    if pairs:
        return f" R has changed names: {pairs[0][0]!r} is {pairs[0][1]!r} among the transcripts ({len(pairs)} such); rename var_names."
    return ""
