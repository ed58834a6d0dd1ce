"""Images of cells along an edit, from t = 0 to t = 1."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm.auto import tqdm

from sst import _keys
from sst._arguments import checked
from sst._settings import settings
from sst._validate import check_choice, check_key, check_range, describe_options, get_counts, resolve_table
from sst.editing import take_rows
from sst.models import draw_options, half_of, inputs_of, resolve, starts_from

from ._editing import Drawing, draw_cells, pictures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
    batch_size: int | None = None,
    store: str | Path | None = None,
    devices: int | str | Sequence[str] | None = None,
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
    batch_size
        Cells at a time.
    store, devices
        As for :func:`sst.tl.edit`: the array is then lazy (dask), over images in that folder.
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

    table = resolve_table(adata, table_key)
    check_range("steps", steps, low=2)
    check_choice("fade", fade, ("with", "without", "only"))
    check_key(table, "layers", layer, name="layer")
    rows = _choose(table, cells, layer, source_layer, n_cells)
    found: Any = resolve(table, model)
    inversion = starts_from(found) == "code"
    if fade == "only" and not inversion:
        msg = f"fade='only' needs an inversion; this model is a {found.registry.kind}, which has no code that fades."
        raise ValueError(msg)
    if device is not None:
        found.to(device)
    t = np.linspace(0, 1, steps)
    given: dict[str, Any] = {
        "fade": fade,
        "source_layer": source_layer,
        "seed": seed,
        "refine": refine,
        "refine_steps": refine_steps,
    }
    images = draw_cells(
        table,
        rows,
        found,
        partial(_way, t=t, layer=layer, batch_size=batch_size, **given),
        slots={"transition": pictures(found, steps)},
        layers=[layer, source_layer],
        about=given | {"steps": steps, "layers": [layer, source_layer or ""]},
        drawing=Drawing.of(batch_size=batch_size, store=store, devices=devices),
        frames=steps,
    )["transition"]
    shape = (len(rows), steps, len(found.registry.channels), *images.shape[2:])
    light = {_keys.BRIGHTFIELD: 1} if _keys.is_brightfield(table) else {}
    return xr.DataArray(
        images.reshape(shape).swapaxes(0, 1),
        dims=("step", "cell", "channel", "y", "x"),
        coords={
            "step": t,
            "cell": table.obs_names[rows].to_numpy().astype(str),
            "channel": list(found.registry.channels),
        },
        attrs={"model": str(found.hash), "layer": layer, "fade": fade if inversion else "none"} | light,
        name="transition",
    )


def _way(
    model: Any,
    part: AnnData,
    *,
    t: np.ndarray,
    fade: Fade,
    layer: str,
    source_layer: str | None,
    seed: int,
    refine: int,
    refine_steps: int,
    batch_size: int | None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Images along the way, n x (steps channels) x h x w; latent and noise stay the cell's own."""
    options |= {"source_layer": source_layer, "batch_size": batch_size}
    start = _dense(part, source_layer)
    stop = start if fade == "only" else _dense(part, layer)
    if starts_from(model) == "code":
        options |= {"refine": refine, "refine_steps": refine_steps}
        images = model.interpolate(part, start, stop, t=t, fade=np.zeros_like(t) if fade == "without" else t, **options)
    else:
        given = draw_options(model, source_layer=source_layer) | {"batch_size": batch_size, "progress": False}
        hidden = not (settings.progress if options.get("progress") is None else options["progress"])
        way, frames = part.copy() if part.is_view else part, []
        ends = {"transition": (start, stop)}
        for half in inputs_of(model):  # each on its own way, where the edit left word of both
            if (edited := _keys.half_layer(layer, half)) in part.layers:
                before = take_rows(half_of(part, source_layer, half), slice(None), np.float32)
                ends[_keys.half_layer("transition", half)] = before, _dense(part, edited)
        for value in tqdm(t, desc="transition", disable=hidden):
            for name, (a, b) in ends.items():
                way.layers[name] = ((1 - value) * a + value * b).astype(np.float32)
            frames.append(model.generate(way, layer="transition", seed=seed, **given))
        images = np.stack(frames)
    return {"transition": np.moveaxis(images, 0, 1).reshape(images.shape[1], -1, *images.shape[3:])}


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
