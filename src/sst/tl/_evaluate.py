"""The paper's evaluation: eight conditions, both directions, with controls and floors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst import _keys
from sst._files import write_text
from sst._settings import logger, settings
from sst._validate import check_choice, check_groups, check_range, resolve_subset, resolve_table

from ._editing import EditRequest, run_edit
from ._measuring import (
    CONTROLS,
    METRICS,
    Condition,
    Folder,
    Reals,
    channel_names,
    check_groupby,
    conditions_of,
    find_nucleus_channel,
    gene_sets,
    get_images,
    hash_of,
    held_out,
    image_models,
    maker,
    measure_condition,
    resolve_features,
    row_reader,
    summarise_distances,
    summarise_measures,
    summarise_quality,
    without_slots,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    Subset = np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None


def evaluate(
    adata: AnnData | SpatialData,
    *,
    model: Any = None,
    genes: str | Iterable[str] | None = None,
    subset: Subset = None,
    groupby: str | None = None,
    method: str = "scm",
    top_k: int | None = 1,
    n_max: int = 50_000,
    repeats: int = 4,
    metrics: Sequence[str] = ("frechet", "kid", "d_eig", "d_lea"),
    features: Any = "auto",
    controls: Sequence[str] = CONTROLS,
    n_measured: int = 5000,
    lpips_weights: str | Path | None = None,
    nucleus_channel: str | int | None = None,
    layer: str | None = None,
    level: float = 0.95,
    out: str | Path | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    key_added: str = "evaluation",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Measure what edits change, in the paper's eight conditions and both directions, on held-out cells.

    {generated, reconstructed} x {chosen genes, all genes} x {all cells, subset}, as far as there are models, genes and a
    subset. For each: distances of the images to both groups' real images before and after the edit with the
    real-to-real floor (see :func:`sst.tl.distances` for how samples are drawn); cell features before and after against the
    real gap; for reconstructions PSNR and SSIM. Controls beside them: as many random genes of like expression, and an
    inversion's fade without an edit. Edits are learnt from training cells. Images are made batch by batch and not kept.

    Parameters
    ----------
    adata
        Paired cells.
    model
        Image models: one or a list of models, folders or names; ``None``: all that were trained on this object.
    genes
        The chosen genes; ``None``: only the edit of all genes.
    subset
        The subtype: boolean mask, query of ``obs``, or ``{key: [categories]}``. Edits of these cells are learnt from these
        cells alone. ``None``: only all cells.
    groupby
        Column of the groups; ``None``: the model's.
    method, top_k
        Of the edit, see :func:`sst.tl.edit`.
    n_max, repeats
        Most cells in a sample, and how many random draws.
    metrics
        Distances, see :func:`sst.tl.distances`.
    features
        Feature space, see :func:`sst.tl.distances`.
    controls
        Of ``"random"`` and ``"fade"``.
    n_measured
        Cells of each group whose nuclei and reconstructions are measured.
    lpips_weights
        AlexNet's weights (a path, or ``"download"``) for LPIPS; ``None``: without.
    nucleus_channel
        As in :func:`sst.tl.morphology`.
    layer
        Layer of the counts; ``None``: ``X``.
    level
        Of the confidence intervals.
    out
        Folder for the tables (CSV) and for finished parts: a second call with the same settings takes up where the first
        stopped.
    seed
        Of draws, latents and noise.
    batch_size
        Cells at a time when images are made.
    device
        For feature networks and the Frechet distance.
    key_added
        Name of the slot in ``uns``.
    copy
        Return an evaluated copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes ``uns[key_added]``:

    ``distances``
        DataFrame, one row a condition, group, reference and metric: ``images``, ``edit`` (``none``, ``chosen``, ``all``,
        ``random``, ``fade``), ``cells``, ``source``, ``reference``, ``relation``, ``metric``, ``role`` (``before``, ``after``,
        ``control``), ``mean``, ``sd``, ``floor``, ``floor_sd``, ``change`` with ``change_low``, ``change_high``, ``n``,
        ``repeats``, ``features``.
    ``morphology``
        DataFrame, one row a condition, direction and feature: means of real, before and after, ``change`` with its interval,
        ``gap``, ``gap_closed``, ``hedges_g``, ``cliffs_delta``, ``p``, ``n``.
    ``reconstruction``
        DataFrame: ``metric``, ``channel``, ``group``, ``mean``, ``low``, ``high`` (empty without an inversion).
    ``params``
        Settings, hashes of models, genes of each edit.

    and the same tables to ``out``.

    Raises
    ------
    KeyError
        No model, slot, gene or column.
    ValueError
        Too few held-out cells, ``out`` holds another evaluation, an unknown choice.

    References
    ----------
    Wu and Koelzer (2024), figures q.1 to q.3 and tables of the evaluation.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    for control in controls:
        check_choice("control", control, CONTROLS)
    for metric in metrics:
        check_choice("metric", metric, METRICS)
    for name, value in (("n_max", n_max), ("n_measured", n_measured)):
        check_range(name, value, low=2)
    check_range("repeats", repeats, low=1)
    crops = get_images(table, _keys.CROPS)
    models = image_models(table, model)
    for one in models.values():
        one.registry.check(table, layer=layer)
    groupby = groupby or next((g for m in models.values() if (g := getattr(m.registry, "groupby", ""))), None)
    groupby = check_groupby(table, groupby)
    groups = check_groups(table, groupby)
    labels = table.obs[groupby].astype(str).to_numpy()
    test = held_out(table)
    masks = {"all": np.ones(table.n_obs, bool)}
    if subset is not None:
        masks["subset"] = resolve_subset(table, subset)
    rows = {c: {g: np.flatnonzero(m & test & (labels == g)) for g in groups} for c, m in masks.items()}
    n = {c: min([n_max, *(len(r) // 2 for r in by.values())]) for c, by in rows.items()}
    for name, count in n.items():
        if count < 2:
            sizes = {g: len(r) for g, r in rows[name].items()}
            msg = f"cells={name!r}: held-out cells of each group are {sizes}; at least 4 are needed."
            raise ValueError(msg)
    edits = gene_sets(table, genes, controls, learn=~test if (~test).any() else test, seed=seed)
    conditions = conditions_of(list(models), list(edits), list(masks), controls)
    every = np.concatenate(list(rows["all"].values()))
    space = resolve_features(table, features, every, device=device)
    channels = channel_names(table)
    params: dict[str, Any] = {
        "groupby": groupby,
        "method": method,
        "top_k": top_k,
        "n_max": n_max,
        "n": n,
        "repeats": repeats,
        "metrics": list(metrics),
        "features": space.name,
        "controls": list(controls),
        "n_measured": n_measured,
        "layer": layer,
        "level": level,
        "seed": seed,
        "genes": {name: [] if value is None else value for name, value in edits.items()},
        "models": {kind: str(m.hash) for kind, m in models.items()},
        "cells": {c: hash_of(m) for c, m in masks.items()},
        "objects": hash_of([*map(str, table.obs_names[:: max(1, table.n_obs // 1000)]), table.n_obs, table.n_vars]),
    }
    folder = Folder(None if out is None else Path(out), {k: v for k, v in params.items() if v is not None})
    options = {
        "nucleus_channel": find_nucleus_channel(channels, nucleus_channel),
        "channels": channels,
        "pixel_size": float(table.uns.get(_keys.CROPS, {}).get("pixel_size", 0.0) or 0.0) or None,
    }
    found: dict[Condition, dict[str, pd.DataFrame]] = {}
    reals: dict[str, Reals] = {}
    light = without_slots(table, layer)
    bar = tqdm(conditions, desc="evaluate", disable=not settings.progress)
    for condition in bar:
        bar.set_postfix_str(condition.name)
        if condition.cells not in reals:
            reals[condition.cells] = Reals(
                table,
                rows[condition.cells],
                n=n[condition.cells],
                repeats=repeats,
                seed=seed,
                space=space,
                n_measured=n_measured,
                options=options,
            )
        done = folder.load(condition.name)
        if done is None:
            if condition.edit in edits:
                _edit_expression(
                    light,
                    edits[condition.edit],
                    groupby,
                    masks[condition.cells],
                    test,
                    method=method,
                    top_k=top_k,
                    layer=layer,
                )
            make = maker(
                models[condition.images],
                light,
                condition,
                layer="edited" if condition.edit in edits else layer,
                seed=seed,
                batch_size=batch_size,
            )
            rebuilt = condition.images == "reconstructed" and condition.edit == "none"
            done = measure_condition(
                condition,
                make,
                reals[condition.cells],
                metrics=metrics,
                options=options,
                device=device,
                compare=row_reader(crops) if rebuilt else None,
                lpips_weights=lpips_weights,
            )
            folder.save(condition.name, done)
        else:
            logger.info("%s: taken from %s", condition.name, out)
        found[condition] = done
    tables = {
        "distances": summarise_distances(pd.concat([f["distances"] for f in found.values()]), n, space.name, level),
        "morphology": summarise_measures(
            {c: f["measures"] for c, f in found.items()}, reals, labels, level=level, seed=seed
        ),
        "reconstruction": summarise_quality(
            {c: f.get("quality", pd.DataFrame()) for c, f in found.items()}, labels, level=level, seed=seed
        ),
    }
    if folder.path is not None:
        for name, one in tables.items():
            write_text(folder.path / f"{name}.csv", one.to_csv(index=False))
    _keys.write_params(table, key_added, params, **{k: v for k, v in tables.items() if len(v)})
    return table if copy else None


def _edit_expression(
    light: AnnData,
    genes: list[str] | None,
    groupby: str,
    mask: np.ndarray,
    test: np.ndarray,
    *,
    method: str,
    top_k: int | None,
    layer: str | None,
) -> None:
    """Edit the held-out cells; learn from the training cells of the same choice."""
    fit = None if mask.all() else mask
    request = EditRequest(
        genes=genes, groupby=groupby, method=method, top_k=top_k, subset=mask & test, layer=layer, fit_subset=fit
    )
    run_edit(light, request, model=None, key=_keys.EDITED)
