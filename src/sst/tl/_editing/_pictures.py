"""Where drawn images go: into memory, or block by block into a store."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from sst import _keys
from sst._settings import logger, settings
from sst.editing import take_rows
from sst.io import crop_reader
from sst.io.store import draw_to_store, store_behind
from sst.models import starts_from
from sst.tl._measuring import expression_hash, image_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK = 2048  # cells drawn, and written, at a time
SHARE = 0.25  # of the free memory that a slot may take before it goes to a store by itself


class Make(Protocol):
    """Draws cells: name of a slot -> images."""

    def __call__(self, part: AnnData, **options: Any) -> dict[str, Any]:
        """``part``: the cells, with all that the model reads; ``options``: further ones of its ``generate``."""


def draw_cells(
    adata: AnnData,
    index: np.ndarray,
    model: Any,
    make: Make,
    *,
    slots: Sequence[str],
    layers: Sequence[str | None],
    about: dict[str, Any],
    store: Path | None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Images of the cells ``index``, by slot: arrays, or lazy arrays over ``store``.

    Parameters
    ----------
    adata
        Object.
    index
        Rows to draw.
    model
        The image model.
    make
        How it is asked.
    slots
        What ``make`` gives.
    layers
        Expression that the model reads.
    about
        What the images depend on beside expression, crops and the model.
    store
        Folder; ``None``: memory, unless crops come from a store and the slots would not fit.
    batch_size
        Cells that the model draws at a time.
    """
    registry = model.registry
    shape = (len(index), len(registry.channels), registry.output_size, registry.output_size)
    looks = starts_from(model) != "expression" and _keys.CROPS in adata.obsm
    behind = None if store is not None else _store_if_large(adata, shape, len(slots))
    if store is None and behind is None:
        return make(adata if len(index) == adata.n_obs else adata[index])
    drawn_from = _hash(adata, index, model, layers, about | {"slots": sorted(slots)}, looks=looks)
    if behind is not None:
        store = behind.with_name(f"{behind.stem}.pictures-{drawn_from}.zarr")
        logger.info("images of %d cells would not fit into memory: they are drawn into %s", len(index), store)
    part_of = _Parts(adata, index, layers, looks=looks)
    step = (
        max(BLOCK // batch_size, 1) * batch_size if batch_size else BLOCK
    )  # whole batches: the same sums as in one go
    blocks = [(a, min(a + step, len(index))) for a in range(0, len(index), step)]
    with tqdm(total=len(index), desc="draw", unit="cell", disable=not settings.progress) as bar:

        def draw(a: int, b: int) -> dict[str, np.ndarray]:
            bar.update(b - bar.n)
            return make(part_of(a, b), progress=False)

        return draw_to_store(slots, blocks, shape, draw, store=Path(store or ""), drawn_from=drawn_from)


class _Parts:
    """Some cells of an object, with what image models read of them, all in memory."""

    def __init__(self, adata: AnnData, index: np.ndarray, layers: Sequence[str | None], *, looks: bool) -> None:
        self.adata, self.index, self.layers = adata, index, set(layers)
        self.var = pd.DataFrame(index=adata.var_names)
        self.reader = crop_reader(adata.obsm[_keys.CROPS]) if looks else None
        self.uns = {_keys.CROPS: adata.uns[_keys.CROPS]} if _keys.CROPS in adata.uns else {}

    def __call__(self, a: int, b: int) -> AnnData:
        rows = self.index[a:b]
        part = AnnData(
            take_rows(self.adata.X, rows, np.float32) if None in self.layers else None,
            obs=pd.DataFrame(index=self.adata.obs_names[rows]),
            var=self.var,
            uns=self.uns,
        )
        for layer in self.layers - {None}:
            part.layers[str(layer)] = take_rows(self.adata.layers[layer], rows, np.float32)
        if self.reader is not None:
            part.obsm[_keys.CROPS] = self.reader.take(rows)
        return part


def _store_if_large(adata: AnnData, shape: tuple[int, ...], slots: int) -> Path | None:
    """The store that crops come from, if the slots would take more than a share of the free memory; else ``None``."""
    behind = store_behind(adata.obsm.get(_keys.CROPS))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4 << 30
    return behind if slots * math.prod(shape) > SHARE * free else None


def _hash(
    adata: AnnData, index: np.ndarray, model: Any, layers: Sequence[str | None], about: dict[str, Any], *, looks: bool
) -> str:
    """What the images are drawn from, in sixteen digits."""
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=8)
    digest.update(str(model.hash).encode())
    digest.update("\x1f".join(map(str, adata.obs_names[index])).encode())
    for layer in layers:
        digest.update(expression_hash(adata.X if layer is None else adata.layers[layer]).encode())
    if looks:
        digest.update(image_hash(adata.obsm[_keys.CROPS]).encode())
    return digest.hexdigest()
