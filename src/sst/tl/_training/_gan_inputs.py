"""What the training of a GAN reads from an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sst._settings import logger
from sst._validate import check_groups, check_key
from sst.io import crop_reader
from sst.io.store import ArrayReader

from ._cells import log_statistics, split_rows
from ._held_out import MOST

if TYPE_CHECKING:
    from anndata import AnnData

    from sst.models import Registry

# counts below this quantile of (so many) training cells, or above their largest, are out of range
RANGE, RANGE_CELLS = 0.001, 20_000


@dataclass
class GanInputs:
    """The cells of a training.

    Attributes
    ----------
    registry, n_groups
        Genes, channels, sizes; number of groups.
    crops
        Array or reader of crops, n x c x h x w uint8.
    rows
        The training cells' places in ``crops``, m.
    counts, codes
        Their counts m x p and group numbers m.
    held_images, held_counts, held_names
        Cells that are not trained on.
    mean, std, low, high
        Statistics of log counts and range of counts of the training cells, p each.
    """

    registry: Registry
    n_groups: int
    crops: Any
    rows: np.ndarray
    counts: sparse.csr_matrix
    codes: np.ndarray
    held_images: np.ndarray
    held_counts: np.ndarray
    held_names: list[str]
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


def gan_inputs(adata: AnnData, registry: Registry, groupby: str, layer: str | None, seed: int) -> GanInputs:
    """Take a training's cells from an object (``seed``: of the cells that the range of counts is measured on)."""
    groups = check_groups(adata, groupby)
    counts = adata.X if layer is None else check_key(adata, "layers", layer, name="layer")
    train, held_out = _train_and_test(adata)
    matrix = sparse.csr_matrix(counts[train])
    reader = crop_reader(adata)
    if np.dtype(reader.dtype) != np.uint8:
        msg = f"crops are {reader.dtype}, not uint8: rescale their intensities first (sst.pp.rescale_intensity)."
        raise TypeError(msg)
    mean, std = log_statistics(matrix)
    some = np.random.default_rng(seed).permutation(matrix.shape[0])[:RANGE_CELLS]
    low = np.quantile(matrix[np.sort(some)].toarray(), RANGE, axis=0, method="inverted_cdf")
    return GanInputs(
        registry=registry,
        n_groups=len(groups),
        crops=reader.array if isinstance(reader, ArrayReader) else reader,
        rows=train,
        counts=matrix,
        codes=np.array([groups.index(str(g)) for g in adata.obs[groupby].to_numpy()[train]]),
        held_images=np.asarray(reader.take(held_out)),
        held_counts=_dense(counts[held_out]),
        held_names=[str(n) for n in adata.obs_names[held_out]],
        mean=mean.numpy(),
        std=std.numpy(),
        low=low.astype(np.float32),
        high=np.maximum(matrix.max(axis=0).toarray().ravel(), low).astype(np.float32),
    )


def _train_and_test(adata: AnnData, fraction: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and at most ``MOST`` held-out rows; without a split, some of the training cells stand in."""
    train, test = split_rows(adata) or (np.arange(adata.n_obs), np.empty(0, dtype=int))
    if len(test) < 2:
        logger.warning("no held-out cells (sst.pp.train_test_split): distances are measured on training cells.")
        test = train[:: max(1, int(1 / fraction))] if len(train) >= 20 else train
    if len(test) > MOST:
        test = np.sort(np.random.default_rng(0).permutation(test)[:MOST])
    return train, test


def _dense(matrix: Any) -> np.ndarray:
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)
