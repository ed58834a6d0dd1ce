"""Draw images of an object's cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._settings import settings
from sst._validate import check_choice, get_counts, is_edit, resolve_table
from sst.editing import take_rows
from sst.models import Model, resolve, starts_from

from ._editing import Drawing, check_scale, draw_images, say_floor, write_images
from ._measuring import expression_hash

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData


@checked
def generate(
    adata: AnnData | SpatialData,
    *,
    model: str | Path | Model = "last",
    layer: str | None = None,
    key_added: str = _keys.GENERATED,
    n_samples: int = 1,
    sources: AnnData | Literal["own", "train"] = "own",
    neighbors: int | None = None,
    seed: int | None = 0,
    batch_size: int | None = None,
    store: str | Path | None = None,
    devices: int | str | Sequence[str] | None = None,
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Draw every cell's image from its expression.

    Parameters
    ----------
    adata
        Cells with the model's genes (in any order).
    model
        Model, its folder, its name in ``uns["sst"]["models"]``, or ``"last"``.
    layer
        Expression (``None``: ``X``), for instance ``"edited"``.
    key_added
        Slot of the images.
    n_samples
        Images of each cell.
    sources
        What an editor turns: ``"own"``, each cell's own crop; ``"train"``, another cell of the object with ``obs["split"] == "train"`` (of all, without a
        split), turned or mirrored at random as in training; or an AnnData of other cells. With the latter two an editor is a generator: it needs the cells'
        expression alone, and draws as many different cells of it as are asked for.
    neighbors
        Turn a random one of so many sources whose expression is nearest (``None``: of all).
    seed
        Of sources, latents and noise, which belong to the cell: the same seed before and after an edit changes the genes alone
        (``None``: :attr:`sst.settings.seed`).
    batch_size
        Cells at a time (``None``: what suits the device).
    store
        Folder that images are drawn into, block by block, as :func:`sst.tl.edit` does.
    devices
        That share the cells, as for :func:`sst.tl.edit`.
    copy
        Return a changed copy (of the table) instead of changing ``adata``.
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None``, or the copy. Writes ``obsm[key_added]`` (n x c x h x w uint8; n x n_samples x c x h x w if ``n_samples > 1``) and
    ``uns[key_added]["params"]`` (layer, hash of the expression, seed, n_samples, sources, neighbors, the model's hash, kind and folder). With sources
    other than the cells themselves also ``obs[f"{key_added}_source"]``, the name of the cell that the (first) image was drawn from.

    Raises
    ------
    KeyError
        The model or the layer is not known.
    TypeError
        Sources for a model that turns no cells.
    ValueError
        Genes, channels or sizes differ from the model's; there are fewer than two sources, or than ``neighbors``.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    seed = settings.seed if seed is None else seed
    found = resolve(table, model)
    if not hasattr(found, "generate"):
        msg = f"a {found.registry.kind!r} model makes no images; use a GAN, an editor or an inversion."
        raise TypeError(msg)
    counts = get_counts(table, layer)
    if not is_edit(table, layer):  # what an edit wrote holds fractions of counts
        check_scale(found, counts, layer)
    elif layer in table.uns:
        some = np.unique(np.linspace(0, table.n_obs - 1, min(table.n_obs, 2000)).astype(int))
        say_floor(found, np.arange(table.n_vars), take_rows(counts, some), list(table.var_names))
    if not (isinstance(sources, str) and sources == "own"):
        if store is not None or devices is not None:
            msg = "sources with store or devices: cells that are drawn from others are kept in memory, and drawn on one device."
            raise ValueError(msg)
        pool = _pool(table, sources)
        images, rows = _turner(found).draw(
            table, pool, layer=layer, n_samples=n_samples, neighbors=neighbors, seed=seed, batch_size=batch_size
        )
        images = images[:, 0] if n_samples == 1 else images
        _keys.write_slot(
            table, "obs", _keys.source_column(key_added), pool.obs_names[rows[:, 0]].to_numpy().astype(str)
        )
    elif n_samples == 1:
        given: dict[str, Any] = {} if starts_from(found) == "expression" else {"source_layer": None}
        drawing = Drawing.of(seed=seed, batch_size=batch_size, store=store, devices=devices)
        read = [layer, *given.values()]
        every = np.arange(table.n_obs)
        images = draw_images(table, every, found, drawing, slot=key_added, layer=layer, layers=read, **given)
    elif store is not None or devices is not None:
        what = f"devices={devices!r}" if store is None else f"store={str(store)!r}"
        msg = f"n_samples={n_samples} with {what}: a store holds one image a cell, and devices share these."
        raise ValueError(msg)
    else:
        images = found.generate(table, layer=layer, n_samples=n_samples, seed=seed, batch_size=batch_size)
    write_images(table, key_added, images)
    params = {
        "layer": layer,
        "expression_hash": expression_hash(counts),
        "seed": seed,
        "n_samples": n_samples,
        "sources": sources if isinstance(sources, str) else f"{sources.n_obs} other cells",
        "neighbors": neighbors,
        "model_hash": found.hash,
        "model_kind": found.registry.kind,
        "model_folder": found.folder,
    }
    _keys.write_params(table, key_added, params)
    return table if copy else None


def _turner(model: Any) -> Any:
    """The model, if it can turn one cell into another."""
    if not hasattr(model, "draw"):
        msg = f"sources: a {model.registry.kind!r} model turns no cells into others; an editor does."
        raise TypeError(msg)
    return model


def _pool(table: AnnData, sources: AnnData | str) -> AnnData:
    """The cells that others are drawn from."""
    if not isinstance(sources, str):
        return sources
    check_choice("sources", sources, ("own", "train"))
    return table if _keys.SPLIT not in table.obs else table[(table.obs[_keys.SPLIT] == "train").to_numpy()]
