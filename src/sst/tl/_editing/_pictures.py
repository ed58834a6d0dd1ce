"""Where drawn images go: into memory, or block by block into a store."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from tqdm.auto import tqdm

from sst import _keys
from sst._settings import logger, settings
from sst.editing import take_rows
from sst.io import crop_reader
from sst.io.crops import active_client
from sst.io.store import Slot, draw_in_memory, draw_to_store, store_behind
from sst.models import cells_at_once, inputs_of, starts_from
from sst.tl._measuring import expression_hash, image_hash
from sst.train import free_memory

from ._crew import Block, draw_here, draw_there

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from ._crew import Make
    from ._images import Drawing

BLOCK = 2048  # images drawn, and written, at a time
SHARE = 0.25  # of the free memory that slots may take before they go to a store by themselves


def pictures(model: Any, frames: int = 1) -> Slot:
    """What a model draws of a cell; ``frames``: so many images, their channels one behind the other."""
    registry = model.registry
    return Slot((frames * len(registry.channels), registry.output_size, registry.output_size))


def draw_cells(
    adata: AnnData,
    index: np.ndarray,
    model: Any,
    make: Make,
    *,
    slots: Mapping[str, Slot],
    layers: Sequence[str | None],
    about: dict[str, Any],
    drawing: Drawing,
    frames: int = 1,
) -> dict[str, Any]:
    """Images of the cells ``index``, by slot: arrays, or lazy arrays over ``drawing.store``.

    Parameters
    ----------
    adata
        Object.
    index
        Rows to draw.
    model
        The image model.
    make
        How it is asked; travels to other processes.
    slots
        What ``make`` gives.
    layers
        Expression that the model reads.
    about
        What the images depend on beside expression, crops and the model.
    drawing
        Store (``None``: memory, unless crops come from a store and the slots would not fit), devices, batch size.
    frames
        Images of a cell.
    """
    store, devices = drawing.store, drawing.devices
    layers = [*layers, *_read_beside(adata, model, layers)]
    looks = starts_from(model) != "expression" and _keys.CROPS in adata.obsm
    behind = None if store is not None else _store_if_large(adata, len(index) * sum(s.bytes for s in slots.values()))
    if store is None and behind is None and devices is None:
        return make(model, adata if len(index) == adata.n_obs else adata[index])
    batch = drawing.batch_size or cells_at_once(model)
    step = max(BLOCK // frames // batch, 1) * batch  # whole batches: the same sums as in one go
    blocks = [(a, min(a + step, len(index))) for a in range(0, len(index), step)]
    client = active_client() if devices is None else None
    read = _Cells(adata, index, layers, looks=looks, apart=client is not None)
    draw = draw_here(model, devices, make, read) if client is None else draw_there(client, model, make, read)
    with tqdm(total=len(index), desc="draw", unit="cell", disable=not settings.progress) as bar:

        def shown(blocks: list[tuple[int, int]]) -> Generator[dict[str, np.ndarray]]:
            bar.update(len(index) - sum(b - a for a, b in blocks))
            for made in draw(blocks):
                yield made
                bar.update(len(next(iter(made.values()))))

        if store is None and behind is None:
            return draw_in_memory(slots, blocks, shown)
        drawn_from = _hash(adata, index, model, layers, about | {"slots": sorted(slots)}, looks=looks)
        if store is None:
            store = behind.with_name(f"{behind.stem}.pictures-{drawn_from}.zarr")  # type: ignore[union-attr]
            logger.info("images of %d cells would not fit into memory: they are drawn into %s", len(index), store)
        return draw_to_store(slots, blocks, shown, store=store, drawn_from=drawn_from)


def _read_beside(adata: AnnData, model: Any, layers: Sequence[str | None]) -> list[str | None]:
    """What a model that reads a window's halves apart reads beside ``layers``."""
    inputs = inputs_of(model)
    if not inputs:
        return []
    halves = [
        half_layer
        for layer in layers
        for half in inputs
        if (half_layer := _keys.half_layer(layer, half)) in adata.layers
    ]
    return [*halves, _keys.SEGMENTED, model.registry.layer]


class _Cells:
    """Some cells of an object, with what image models read of them, all in memory (``apart``: but for crops that are on disk)."""

    def __init__(
        self, adata: AnnData, index: np.ndarray, layers: Sequence[str | None], *, looks: bool, apart: bool
    ) -> None:
        self.adata, self.index, self.layers = adata, index, set(layers)
        self.var = pd.DataFrame(index=adata.var_names)
        self.reader = crop_reader(adata.obsm[_keys.CROPS]) if looks else None
        self.apart = apart and looks and store_behind(adata.obsm[_keys.CROPS]) is not None
        self.uns = {_keys.CROPS: adata.uns[_keys.CROPS]} if _keys.CROPS in adata.uns else {}

    def __call__(self, a: int, b: int) -> Block:
        rows = self.index[a:b]
        part = AnnData(
            take_rows(self.adata.X, rows, np.float32) if None in self.layers else None,
            obs=pd.DataFrame(index=self.adata.obs_names[rows]),
            var=self.var,
            uns=self.uns,
        )
        for layer in self.layers - {None}:
            part.layers[str(layer)] = take_rows(self.adata.layers[layer], rows, np.float32)
        if self.reader is not None and not self.apart:
            part.obsm[_keys.CROPS] = self.reader.take(rows)
        return Block(part, _keys.CROPS, self.reader if self.apart else None, rows)


def _store_if_large(adata: AnnData, need: int) -> Path | None:
    """The store that crops come from, if the slots would take more than a share of the free memory; else ``None``."""
    behind = store_behind(adata.obsm.get(_keys.CROPS))
    return behind if need > SHARE * free_memory(torch.device("cpu")) else None


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
