"""A window's counts in two halves: the cell's own, and those of its niche, the neighbours and what lies between cells.

Own counts are those of the segmented cell, as far as the window has them; the niche's are all others. The two add up to the window's, for
every cell and gene.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sst import _keys
from sst._validate import check_choice, get_counts, is_edit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

HALVES = ("own", "niche")


def check_inputs(adata: AnnData, inputs: Sequence[str] | None, layer: str | None) -> tuple[str, ...]:
    """The halves that a model is to read; empty for the window as one.

    Raises
    ------
    KeyError
        ``layers["segmented"]`` is not there.
    ValueError
        A half is unknown, named twice, or without counts.
    """
    if inputs is None:
        return ()
    chosen = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    for one in chosen:
        check_choice("inputs", one, HALVES)
    if not chosen or len(set(chosen)) < len(chosen):
        msg = f"inputs={list(chosen)}: name each of {list(HALVES)} once at most, and at least one."
        raise ValueError(msg)
    for one in chosen:
        if not half_of(adata, layer, one).sum():
            why = "the window's counts are the segmented cell's" if one == "niche" else "the segmented cells have none"
            msg = f"inputs={list(chosen)}: there is no count of {one!r}; {why}."
            raise ValueError(msg)
    return chosen


def segmented_of(adata: AnnData) -> Any:
    """Counts of the segmented cells, n x p."""
    if _keys.SEGMENTED not in adata.layers:
        msg = f"layers[{_keys.SEGMENTED!r}] is not there: without the segmented cells' counts a window cannot be told apart into own and niche."
        raise KeyError(msg)
    return adata.layers[_keys.SEGMENTED]


def half_of(adata: AnnData, layer: str | None, part: str) -> Any:
    """One half of the counts in ``layer`` (``None``: ``X``), n x p, sparse if they are.

    Raises
    ------
    KeyError
        ``layers["segmented"]`` is not there.
    ValueError
        The layer was edited as one window: what became of its halves is not known.
    """
    recorded = _keys.half_layer(layer, part)
    if layer is not None and recorded in adata.layers:
        return adata.layers[recorded]
    if is_edit(adata, layer):
        msg = f"layers[{layer!r}] was edited as one window: edit a half of it (part=), or with a model that reads halves, to know what becomes of each."
        raise ValueError(msg)
    counts, segmented = get_counts(adata, layer), segmented_of(adata)
    counts, segmented = (m.compute() if hasattr(m, "compute") else m for m in (counts, segmented))
    if sparse.issparse(counts):
        counts = sparse.csr_matrix(counts)
        own = counts.minimum(sparse.csr_matrix(segmented)).tocsr()
    else:
        own = np.minimum(counts, segmented.toarray() if sparse.issparse(segmented) else segmented)
    return own if part == "own" else counts - own


def split_rows(shown: np.ndarray, counts: np.ndarray, segmented: np.ndarray) -> dict[str, np.ndarray]:
    """Both halves of some cells' expression ``shown``, whatever it is, m x p float32.

    Counts that are shown as they are have the halves of :func:`half_of`; a gene that is shown otherwise keeps its share of own counts, and where
    the window has none of it, the cell's share over all genes.
    """
    own = np.minimum(segmented, counts)
    total = counts.sum(axis=1, keepdims=True)
    usual = np.divide(own.sum(axis=1, keepdims=True), total, out=np.zeros_like(total), where=total > 0)
    share = np.where(counts > 0, np.divide(own, counts, out=np.zeros_like(own), where=counts > 0), usual)
    mine = np.where(shown == counts, own, shown * share)
    return {"own": mine, "niche": np.where(shown == counts, counts - own, shown - mine)}


def write_halves(adata: AnnData, layer: str, part: str, edited: Any, other: Any) -> None:
    """Write ``layers[layer]`` and both its halves (float32): one edited, the other as it was."""
    names = dict(zip(HALVES, (edited, other) if part == HALVES[0] else (other, edited), strict=True))
    for half, values in names.items():
        _keys.write_slot(adata, "layers", _keys.half_layer(layer, half), values.astype(np.float32))
    whole = edited + other
    whole = whole.tocsr() if sparse.issparse(whole) else np.asarray(whole)
    _keys.write_slot(adata, "layers", layer, whole.astype(np.float32))


def forget_halves(adata: AnnData, layer: str) -> None:
    """Take away the halves of an earlier edit of this name."""
    for half in HALVES:
        adata.layers.pop(_keys.half_layer(layer, half), None)
