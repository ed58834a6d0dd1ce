"""Images of cells along an edit, from t = 0 to t = 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._settings import settings
from sst._validate import check_choice, check_key, check_range, describe_options, get_counts, resolve_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData
    from xarray import DataArray

Fade = Literal["with", "without", "only"]


@checked
def transition(
    adata: AnnData | SpatialData,
    *,
    model: Any = "last",
    steps: int = 100,
    cells: Sequence[str | int] | np.ndarray | None = None,
    layer: str = _keys.EDITED,
    source_layer: str | None = None,
    fade: Fade = "with",
    n_cells: int = 16,
    seed: int = 0,
    refine: int = 0,
    refine_steps: int = 0,
    table_key: str = _keys.TABLE,
    device: str | None = None,
) -> DataArray:
    """Images of cells on the straight way from their expression to their edited expression.

    Step k shows ``(1 - t) G + t G'`` with ``t = k / (steps - 1)``. With an inversion the pixel code of a cell fades at the same
    time by ``2^(-6 t)``, which changes the image even if no gene does; ``fade`` takes the two effects apart.

    Parameters
    ----------
    adata
        Object with an edited layer (:func:`sst.tl.edit`).
    model
        Image model: ``"last"``, a name, a folder, or a model. With an editor the first image is the real crop itself.
    steps
        Images a cell, both ends included.
    cells
        Names, numbers or a mask; if left out, ``n_cells`` of those that the edit changed, evenly spread.
    layer
        The edited expression.
    source_layer
        The unedited expression (``X`` if left out).
    fade
        ``"with"`` (genes and fade, the paper's), ``"without"`` (genes only), ``"only"`` (fade only; the genes stay).
    n_cells
        How many cells are chosen if ``cells`` is left out.
    seed
        Of a GAN's latent vectors and noise.
    refine, refine_steps
        As for :meth:`sst.models.Inversion.generate`.
    table_key
        Table of a SpatialData.
    device
        Defaults to the setting.

    Returns
    -------
    uint8 array with dimensions step, cell, channel, y, x; coordinates step (t), cell (names), channel (names); attributes
    ``model``, ``layer``, ``fade``.

    Raises
    ------
    KeyError
        The layer or a cell is not there.
    ValueError
        ``fade="only"`` with any other model than an inversion; no cell; fewer than 2 steps.
    """
    import xarray as xr

    from sst.models import resolve, starts_from

    table = resolve_table(adata, table_key)
    check_range("steps", steps, low=2)
    check_choice("fade", fade, ("with", "without", "only"))
    check_key(table, "layers", layer, name="layer")
    rows = _choose(table, cells, layer, source_layer, n_cells)
    chosen = table[rows]
    found: Any = resolve(table, model)
    start = _dense(chosen, source_layer)
    stop = start if fade == "only" else _dense(chosen, layer)
    t = np.linspace(0, 1, steps)
    inversion = starts_from(found) == "code"
    if fade == "only" and not inversion:
        msg = f"fade='only' needs an inversion; this model is a {found.registry.kind}, which has no code that fades."
        raise ValueError(msg)
    if inversion:
        images = found.interpolate(
            chosen,
            start,
            stop,
            t=t,
            fade=np.zeros_like(t) if fade == "without" else t,
            source_layer=source_layer,
            refine=refine,
            refine_steps=refine_steps,
            device=device,
        )
    else:
        images = _along(found, chosen, start, stop, t, seed, device, source_layer)
    light = {_keys.BRIGHTFIELD: 1} if _keys.is_brightfield(chosen) else {}
    return xr.DataArray(
        images,
        dims=("step", "cell", "channel", "y", "x"),
        coords={"step": t, "cell": chosen.obs_names.to_numpy().astype(str), "channel": list(found.registry.channels)},
        attrs={"model": str(found.hash), "layer": layer, "fade": fade if inversion else "none"} | light,
        name="transition",
    )


def _along(
    model: Any,
    chosen: AnnData,
    start: np.ndarray,
    stop: np.ndarray,
    t: np.ndarray,
    seed: int,
    device: str | None,
    source_layer: str | None,
) -> np.ndarray:
    """Images along the way; latent and noise stay the cell's own (step, cell, channel, y, x)."""
    from tqdm.auto import tqdm

    from sst.models import draw_options

    way, options = chosen.copy(), draw_options(model, source_layer=source_layer)
    frames = []
    for value in tqdm(t, desc="transition", disable=not settings.progress):
        way.layers["transition"] = ((1 - value) * start + value * stop).astype(np.float32)
        frames.append(model.generate(way, layer="transition", seed=seed, device=device, progress=False, **options))
    return np.stack(frames)


def _dense(adata: AnnData, layer: str | None) -> np.ndarray:
    matrix = get_counts(adata, layer, name="source_layer")
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, dtype=np.float32)


def _choose(
    table: AnnData, cells: Sequence[str | int] | np.ndarray | None, layer: str, source_layer: str | None, n_cells: int
) -> np.ndarray:
    """Row numbers of the cells asked for."""
    n = table.n_obs
    if cells is None:
        check_range("n_cells", n_cells, low=1)
        before = get_counts(table, source_layer, name="source_layer")
        after = table.layers[layer]
        changed = np.asarray(abs(before - after).sum(axis=1)).ravel() > 0
        rows = np.flatnonzero(changed)
        if not len(rows):
            msg = f"layer={layer!r} changes no cell: name the cells, or edit first (sst.tl.edit)."
            raise ValueError(msg)
        return rows[np.unique(np.linspace(0, len(rows) - 1, min(n_cells, len(rows))).round().astype(int))]
    asked = np.atleast_1d(np.asarray(cells))
    if asked.ndim != 1:
        msg = f"cells: expected names, numbers or a mask, one dimension, got shape {asked.shape}."
        raise ValueError(msg)
    if asked.dtype == bool:
        if asked.shape != (n,):
            msg = f"cells: expected {n} booleans, got shape {asked.shape}."
            raise ValueError(msg)
        rows = np.flatnonzero(asked)
    elif asked.dtype.kind in "iu":
        if ((asked < -n) | (asked >= n)).any():
            msg = f"cells: {asked[(asked < -n) | (asked >= n)][0]} is not a row of the {n} cells."
            raise KeyError(msg)
        rows = asked % n
    else:
        names = [str(c) for c in asked.ravel()]
        rows = table.obs_names.astype(str).get_indexer(names)
        if (rows < 0).any():
            wrong = names[int(np.flatnonzero(rows < 0)[0])]
            msg = f"cells: {wrong!r} is not in obs_names. {describe_options(table.obs_names, wrong)}"
            raise KeyError(msg)
    if not len(rows):
        msg = "cells chooses no cell."
        raise ValueError(msg)
    return rows
