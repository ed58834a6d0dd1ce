"""Edited images against the true counterfactual, cell by cell, beside no edit and beside rivals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import _keys
from sst._arguments import checked
from sst._validate import check_groups, check_range, resolve_subset, resolve_table

from ._measuring import (
    FeatureReader,
    check_groupby,
    clusters_of,
    feature_rows,
    get_images,
    held_out,
    image_row,
    read_rows,
    slot_before,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

NO_EDIT = "no edit"


@checked
def counterfactual_error(
    adata: AnnData | SpatialData,
    truth: np.ndarray | str,
    keys: str | Sequence[str] | Mapping[str, str] = _keys.EDITED,
    *,
    features: Sequence[str] | None = None,
    groupby: str | None = None,
    clusters: str | Sequence[str] | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    n_max: int = 1000,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    key_added: str = "counterfactual_error",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Compare edits with the truth: each cell's picture, and each cell's change of each feature.

    For simulated tissue, whose :meth:`sst.datasets.Tissue.counterfactual` draws every cell as it would be. Several edits of the same
    genes stand side by side: a model's, and those of rivals (:func:`sst.tl.fit_rival`).

    Parameters
    ----------
    adata
        After :func:`sst.tl.edit` with an image model, one or several times.
    truth
        Images n x c x h x w (uint8) of each cell as it truly would be, or a slot in ``obsm``.
    keys
        Names of the edits, or ``{method: name}``.
    features
        Columns of :func:`sst.metrics.nucleus_features`; ``None``: area, texture and eccentricity of the nucleus, its stain's
        mean inside it, other channels' means over the window.
    groupby
        Column of the groups; ``None``: the first edit's.
    clusters
        Columns of ``obs`` that together name a cell's field, over which intervals are made; ``None``: ``"sample"``, ``"condition"``, ``"fov"``,
        ``"tile"``, as far as they are there.
    subset
        Cells to take; ``None``: held-out ones.
    n_max
        Most cells of each group.
    level, n_resamples
        Of the intervals.
    seed
        Of the choice of cells and of the bootstrap.
    key_added
        Name of the slot in ``uns``.
    copy
        Return a measured copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes ``uns[key_added]``:

    ``features``
        DataFrame, a row a method (``"no edit"`` first), source group and feature: ``change``, ``true_change``, ``share`` (of the true
        effect, NaN where there is none), ``r`` (correlation over cells of predicted and true change), each with ``_low``, ``_high``
        over fields; ``of_gap``, ``true_of_gap`` (the changes as shares of the difference between the groups), ``gap``, ``sd``, ``n``,
        ``n_clusters``.
    ``images``
        DataFrame, a row a method and source group: ``psnr`` of the images to the true counterfactuals, of the squared error
        over all cells, in dB (at most 100), with ``psnr_low``, ``psnr_high`` over fields.
    ``params``
        The arguments.

    Raises
    ------
    KeyError
        No such edit, slot or group.
    ValueError
        Truth of another shape; the images before an edit were overwritten by another model's.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    check_range("n_max", n_max, low=3)
    methods = _methods(keys)
    for key in methods.values():
        get_images(table, key)
    wanted = get_images(table, truth) if isinstance(truth, str) else truth
    real = get_images(table, _keys.CROPS)
    if not hasattr(wanted, "shape"):
        msg = f"truth={truth!r}: expected images or a slot of obsm, got {type(truth).__name__}."
        raise TypeError(msg)
    if tuple(wanted.shape) != tuple(real.shape):
        msg = f"truth: expected images of shape {tuple(real.shape)}, got {tuple(wanted.shape)}."
        raise ValueError(msg)
    before = {name: slot_before(table, key) for name, key in methods.items()}
    first = table.uns.get(next(iter(methods.values())), {}).get(_keys.PARAMS, {})
    groupby = check_groupby(table, groupby or first.get("groupby"))
    labels = table.obs[groupby].astype(str).to_numpy()
    mask = held_out(table) if subset is None else resolve_subset(table, subset)
    mask = mask & _keys.drawn(table, *methods.values(), *before.values())
    fields = clusters_of(table, clusters)
    rng = np.random.default_rng(seed)
    groups = check_groups(table, groupby)
    rows = {g: np.flatnonzero(mask & (labels == g)) for g in groups}
    rows = {g: np.sort(rng.choice(r, min(n_max, len(r)), replace=False)) for g, r in rows.items() if len(r)}
    read = FeatureReader(table, features)
    reals = {g: read(read_rows(table, real, r)) for g, r in rows.items()}
    options: dict[str, Any] = {"level": level, "n_resamples": n_resamples, "seed": seed}
    feature_table: list[dict[str, Any]] = []
    image_table: list[dict[str, Any]] = []
    for group, own in rows.items():
        targets = [g for g in rows if g != group]
        gap = (
            pd.concat([reals[g] for g in targets]).mean() - reals[group].mean()
            if targets
            else reals[group].mean() * np.nan
        )
        true_images = read_rows(table, wanted, own)
        true = read(true_images)
        measured: dict[str, pd.DataFrame] = {_keys.CROPS: reals[group]}
        for name in (NO_EDIT, *methods):
            if name == NO_EDIT:
                images, change = read_rows(table, real, own), reals[group] * 0.0
            else:
                images = read_rows(table, methods[name], own)
                if before[name] not in measured:
                    measured[before[name]] = read(read_rows(table, before[name], own))
                change = read(images) - measured[before[name]]
            about = {"method": name, "source": group}
            found = feature_rows(reals[group], true, [change], fields[own], gap, **options)
            feature_table += [about | row for row in found]
            image_table.append(about | image_row(true_images, [images], fields[own], **options))
    _keys.write_params(
        table,
        key_added,
        {
            "keys": methods,
            "features": read.features,
            "groupby": groupby,
            "n": {g: len(r) for g, r in rows.items()},
            "level": level,
            "n_resamples": n_resamples,
            "seed": seed,
        },
        features=pd.DataFrame(feature_table),
        images=pd.DataFrame(image_table),
    )
    return table if copy else None


def _methods(keys: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(keys, str):
        return {keys: keys}
    methods = {str(k): str(v) for k, v in keys.items()} if isinstance(keys, Mapping) else {str(k): str(k) for k in keys}
    if not methods or NO_EDIT in methods:
        msg = f"keys={keys!r}: name at least one edit, and none {NO_EDIT!r}."
        raise ValueError(msg)
    return methods
