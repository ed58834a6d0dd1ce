"""From an object to what a training reads: which cells, their crops, counts, and those held out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sst import _keys
from sst._settings import logger
from sst._validate import check_groups, check_key, get_counts
from sst.io import crop_reader
from sst.io.store import ArrayReader
from sst.models import half_of
from sst.train import Cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from sst.models import Registry
    from sst.train import DataConfig

RANGE, RANGE_CELLS = 0.001, 20_000


@dataclass(frozen=True)
class PairedCells:
    """The cells of a training.

    Attributes
    ----------
    cells
        Those it learns from.
    held_out
        Images (m, c, h, w) uint8 and counts (m, p) of cells it does not see; ``None`` if there are none.
    train_rows, held_out_rows
        Their rows in the object.
    batch_key, slides
        obs column of the slides and the names of those that it learns from; no names if all cells count as of one.
    held_out_slides
        Names of the slides of the held-out cells (m), if there are several.
    """

    cells: Cells
    held_out: tuple[Tensor, Tensor] | None
    train_rows: np.ndarray
    held_out_rows: np.ndarray
    batch_key: str = ""
    slides: tuple[str, ...] = ()
    held_out_slides: np.ndarray | None = None

    def known_to(self, registry: Registry) -> Registry:
        """The registry of a model that is trained on these cells."""
        return dataclasses.replace(registry, batch_key=self.batch_key, slides=self.slides)


def counts_of(
    adata: AnnData, layer: str | None = None, order: np.ndarray | None = None, *, inputs: Sequence[str] = ()
) -> csr_matrix:
    """Counts as CSR float32, columns in ``order``; the window's, or the halves of it that are named, one beside the other.

    Raises
    ------
    ValueError
        A value is negative or missing; the message names cell and gene.
    """
    from scipy import sparse

    matrix = get_counts(adata, layer)
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    counts = sparse.csr_matrix(matrix, dtype=np.float32)
    wrong = ~np.isfinite(counts.data) | (counts.data < 0)
    if wrong.any():
        entry = int(np.flatnonzero(wrong)[0])
        row = int(np.searchsorted(counts.indptr, entry, side="right")) - 1
        where = "X" if layer is None else f"layers[{layer!r}]"
        msg = (
            f"{where} holds {int(wrong.sum())} negative or missing values, the first ({counts.data[entry]}) for cell "
            f"{adata.obs_names[row]!r} and gene {adata.var_names[counts.indices[entry]]!r}; counts are expected."
        )
        raise ValueError(msg)
    if inputs:
        halves = [sparse.csr_matrix(half_of(adata, layer, half), dtype=np.float32) for half in inputs]
        return sparse.hstack([h if order is None else h[:, order] for h in halves], format="csr")
    return counts if order is None else counts[:, order]


def log_statistics(counts: csr_matrix) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of log(1 + counts) of each gene, (p,) float32."""
    logged = counts.astype(np.float64).log1p()
    mean = np.asarray(logged.mean(axis=0)).ravel()
    square = np.asarray(logged.multiply(logged).mean(axis=0)).ravel()
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def count_range(counts: csr_matrix, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest count of each gene that a generator is to be trusted with, (p,) float32 each.

    The lowest is a quantile of (so many) cells, drawn by ``seed``; the highest is the largest there is.
    """
    some = np.random.default_rng(seed).permutation(counts.shape[0])[:RANGE_CELLS]
    low = np.quantile(counts[np.sort(some)].toarray(), RANGE, axis=0, method="inverted_cdf")
    high = np.maximum(counts.max(axis=0).toarray().ravel(), low)
    return torch.from_numpy(low.astype(np.float32)), torch.from_numpy(high.astype(np.float32))


def split_rows(adata: AnnData) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of the training cells and of those that a training watches: ``"val"`` if there are any, else ``"test"``; ``None`` without a split.

    Raises
    ------
    ValueError
        No cell is named ``"train"``.
    """
    if _keys.SPLIT not in adata.obs:
        return None
    split = adata.obs[_keys.SPLIT].astype(str).to_numpy()
    watched = "val" if (split == "val").any() else "test"
    train, test = np.flatnonzero(split == "train"), np.flatnonzero(split == watched)
    if not len(train):
        msg = f"obs[{_keys.SPLIT!r}] names no cell 'train'; found {sorted(set(split))}."
        raise ValueError(msg)
    return train, test


def held_out_rows(adata: AnnData, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and at most so many that are held out.

    They are drawn from ``obs["split"] == "val"``, or ``"test"`` if there are none; without a split, a tenth of all cells is held out at random (their windows may
    overlap those of the others: split by region first).
    """
    rng = np.random.default_rng([seed, 77])
    rows = split_rows(adata)
    if rows is not None:
        train, test = rows
    else:
        mixed = rng.permutation(adata.n_obs)
        test, train = np.sort(mixed[: adata.n_obs // 10]), np.sort(mixed[adata.n_obs // 10 :])
        logger.warning(
            "obs['split'] is not there: a random tenth of the cells is held out. Neighbouring windows overlap; "
            "sst.pp.train_test_split(adata, by='fov') gives an honest measure."
        )
    return train, test if len(test) <= most else np.sort(rng.choice(test, most, replace=False))


def paired_cells(
    adata: AnnData,
    config: DataConfig,
    rows: tuple[np.ndarray, np.ndarray],
    *,
    groupby: str | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    order: np.ndarray | None = None,
    inputs: Sequence[str] = (),
) -> PairedCells:
    """Read an object for training.

    Parameters
    ----------
    adata
        Paired cells with uint8 crops.
    config
        Augmentation and placement.
    rows
        Those to learn from and those to measure on.
    groupby
        Column of the groups (``None``: all cells are of one).
    batch_key
        Column of the slides (``None``: all cells count as of one).
    layer
        Counts (``None``: ``X``).
    order
        Columns of the object in the order of a model's genes.
    inputs
        Halves of the window that are read, one beside the other; none: the window as one.

    Raises
    ------
    TypeError
        Crops are not uint8.
    """
    check_key(adata, "obsm", _keys.CROPS, name="crops")
    train, test = rows
    reader = crop_reader(adata)
    counts = counts_of(adata, layer, order, inputs=inputs)
    labels = np.zeros(len(train), dtype=np.int64)
    if groupby is not None:
        groups = check_groups(adata, groupby)
        labels = np.array([groups.index(str(g)) for g in adata.obs[groupby].to_numpy()[train]])
    images = reader.array if isinstance(reader, ArrayReader) else reader  # in memory they need not be copied
    of, slides, codes = _slides(adata, batch_key, train)
    cells = Cells(images, counts[train], labels, rows=train, slides=codes, config=config)
    unseen = None
    if len(test):
        unseen = (torch.from_numpy(np.asarray(reader.take(test))), torch.from_numpy(counts[test].toarray()))
    return PairedCells(cells, unseen, train, test, batch_key or "", slides, of[test] if codes is not None else None)


def _slides(
    adata: AnnData, batch_key: str | None, rows: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Each cell's slide, the names of those that some cells are of, and these cells' codes; no codes where there is but one slide.

    Raises
    ------
    ValueError
        A slide has a single cell: nothing varies within it.
    """
    if batch_key is None:
        return np.empty(0), (), None
    check_key(adata, "obs", batch_key, name="batch_key")
    check_groups(adata, batch_key)
    of = adata.obs[batch_key].astype(str).to_numpy()
    names, codes, size = np.unique(of[rows], return_inverse=True, return_counts=True)
    if len(names) > 1 and size.min() < 2:
        msg = f"batch_key={batch_key!r}: {names[size.argmin()]!r} has a single training cell; each needs at least 2."
        raise ValueError(msg)
    return of, tuple(str(n) for n in names), codes if len(names) > 1 else None
