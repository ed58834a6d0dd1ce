"""How far images lie from each group's real ones, before and after an edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._settings import logger
from sst._validate import check_choice, check_groups, check_range, resolve_subset, resolve_table

from ._measuring import METRICS, check_groupby, get_images, image_keys, measure_distances, resolve_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@checked
def distances(
    adata: AnnData | SpatialData,
    *,
    groupby: str | None = None,
    keys: Sequence[str] | None = None,
    metrics: Sequence[str] = ("frechet", "kid"),
    features: Any = "auto",
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    n_max: int = 50_000,
    repeats: int = 4,
    seed: int = 0,
    device: str | None = None,
    key_added: str = "distances",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Distances of real, generated and edited images of each group to the real images of the own and the other groups.

    All samples have one size, n = the smaller of ``n_max`` and half the smallest group, and no cell is in both samples of
    a distance: a Frechet distance depends on n, so only equal n compare. Where samples take more than half of a group, whole fields of view are drawn instead
    of cells, so that ``sd`` is a spread over fields, not over draws of the same cells. The floor is the distance between two disjoint
    samples of n real cells of the reference group: what no generator can beat.

    Parameters
    ----------
    adata
        Paired cells with images.
    groupby
        Column of ``obs``; ``None``: the one that intensities were rescaled by, else ``"condition"``.
    keys
        Image slots to measure; ``None``: all of the crops' shape.
    metrics
        Of ``"frechet"``, ``"kid"``, ``"d_eig"``, ``"d_lea"``, ``"precision"``, ``"recall"``.
    features
        ``"auto"`` (the object's own CLIP, else ``"pixel-pca"``), ``"clip"``, ``"inception"`` (downloads),
        ``"inception:PATH"``, ``"pixel-pca"``, ``"morphology"``, a CLIP model, or any function of uint8 images.
    subset
        Cells to take (held-out ones, as a rule): boolean mask, query of ``obs``, or ``{key: [categories]}``.
    n_max
        Most cells in a sample.
    repeats
        Random draws; mean and standard deviation are over them.
    seed
        Of the draws.
    device
        For networks and the Frechet distance; ``None``: the setting's for networks, numpy for the distance.
    key_added
        Name of the slot in ``uns``.
    copy
        Return a measured copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes ``uns[key_added]``: ``params`` and ``table``, a DataFrame with one row a slot, group,
    reference group and metric: ``key``, ``source`` (group of the cells), ``reference``, ``relation`` (``"own"`` or
    ``"other"``), ``metric``, ``mean``, ``sd``, ``floor``, ``floor_sd``, ``n``, ``repeats``, ``features``.

    Raises
    ------
    KeyError
        No such column, slot or model.
    ValueError
        A group of fewer than four cells, an unknown metric or feature space.

    References
    ----------
    Wu and Koelzer (2024), distances of figure q.2.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    groupby = check_groupby(table, groupby)
    for metric in metrics:
        check_choice("metric", metric, METRICS)
    for name, value in (("n_max", n_max), ("repeats", repeats)):
        check_range(name, value, low=1)
    keys = image_keys(table) if keys is None else list(keys)
    if _keys.CROPS not in table.obsm:
        get_images(table, _keys.CROPS)
    chosen = resolve_subset(table, subset)
    everywhere = _keys.drawn(table, *keys)
    if not everywhere[chosen].all():
        logger.info(
            "distances: %d of the cells have no image in some of %s; left out.", (chosen & ~everywhere).sum(), keys
        )
    chosen = chosen & everywhere
    groups = check_groups(table, groupby)
    labels = table.obs[groupby].astype(str).to_numpy()
    groups = [g for g in groups if (chosen & (labels == g)).any()]
    rows = {g: np.flatnonzero(chosen & (labels == g)) for g in groups}
    n = min([n_max, *(len(r) // 2 for r in rows.values())]) if rows else 0
    if n < 2:
        msg = f"groups of {groupby!r} have { ({g: len(r) for g, r in rows.items()}) } cells: each needs at least 4."
        raise ValueError(msg)
    space = resolve_features(table, features, np.concatenate(list(rows.values())), device=device)
    result = measure_distances(
        table, space, rows, keys=keys, metrics=metrics, n=n, repeats=repeats, seed=seed, device=device
    )
    _keys.write_params(
        table,
        key_added,
        {
            "groupby": groupby,
            "keys": keys,
            "metrics": list(metrics),
            "features": space.name,
            "n": n,
            "n_max": n_max,
            "repeats": repeats,
            "seed": seed,
        },
        table=result,
    )
    return table if copy else None
