"""Does the image follow the genes? Correlations, a round trip through CLIP, and the truth where it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from sst import _keys
from sst._arguments import checked
from sst._validate import check_genes, check_groups, check_key, check_range, get_counts, resolve_subset, resolve_table
from sst.editing import take_rows
from sst.metrics import over_donors, psnr, recovered_effect, ssim

from ._measuring import (
    NucleusView,
    channel_names,
    check_groupby,
    fields_of,
    get_images,
    held_out,
    image_hash,
    own_clip,
    row_reader,
    slot_before,
)
from ._morphology import morphology

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@checked
def fidelity(
    adata: AnnData | SpatialData,
    key: str = _keys.EDITED,
    *,
    genes: str | Iterable[str] | None = None,
    features: Sequence[str] | None = None,
    groupby: str | None = None,
    clip: Any = "auto",
    truth: np.ndarray | str | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    batch_key: str | None = None,
    n_max: int = 5000,
    n_candidates: int = 200,
    layer: str | None = None,
    seed: int = 0,
    key_added: str = "fidelity",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Measure how far images follow expression, in three ways.

    *Correlation*: the rank correlation of a gene with a feature of the image, within each group (where the slide's label says
    nothing), in real and in generated cells. A generator that listens to its genes has the real cells' correlations.
    *Round trip*: with a CLIP that was trained on real cells, is the edited expression the nearest match of the edited
    image among other cells' edited expression, and nearer to it than the cell's unedited one? *Truth*: where the
    images of the true counterfactual are known (simulated tissue), the error against them, beside that of not editing.

    Parameters
    ----------
    adata
        After :func:`sst.tl.edit` with an image model.
    key
        Name of the edit.
    genes
        For the correlation; ``None``: the edit's genes, or the eight most variable ones where it edits all.
    features
        Measures of :func:`sst.tl.morphology` without the slot's name; ``None``: nuclear area, chromatin contrast, each
        channel's mean over window and nucleus.
    groupby
        Column of the groups; ``None``: the edit's.
    clip
        A CLIP model, ``"auto"`` (the one trained on this object, if any), or ``None``: no round trip.
    truth
        Images n x c x h x w (uint8) of each cell as it truly would be after the edit, or a slot in ``obsm``.
    subset
        Cells to take; ``None``: held-out ones.
    batch_key
        Column of ``obs`` with the donors (or slides): correlations are within donors, where no slide's light is in them, and averaged over donors.
    n_max
        Most cells of each group.
    n_candidates
        Cells among which a match is looked for.
    layer
        Counts; ``None``: the edit's.
    seed
        Of the choice of cells.
    key_added
        Name of the slot in ``uns``.
    copy
        Return a measured copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes ``uns[key_added]``:

    ``correlations``
        DataFrame: ``gene``, ``feature``, ``group``, ``key`` (``crops``, ``generated``), ``rho``, ``low``, ``high`` (95 %,
        over fields of view where ``obs`` names several: whole fields drawn anew), ``p`` (over fields too), ``q`` (Benjamini and Hochberg, over all rows of a slot), ``n``,
        ``n_fields``; with ``batch_key`` interval and test are over donors (``n_donors``, NaN for one).
    ``agreement``
        DataFrame, one row a group: correlation over (gene, feature) of the real and the generated ``rho``, and their mean
        absolute difference.
    ``round_trip``
        DataFrame, one row a slot: ``top1``, ``top5`` and ``chance_top1`` (share of images whose own expression is the nearest,
        or among the nearest five, of ``n_candidates``), ``median_rank`` (0..1, 0.5 by chance), ``prefers_edited`` (share of edited
        images that are nearer to the edited than to the unedited expression).
    ``truth``
        DataFrame, one row a direction: ``psnr`` and ``ssim`` against the truth of the edited images, and of the unedited
        (``_unedited``); for each feature ``change``, ``true_change``, ``recovered`` = change / true change, and ``r``, the
        correlation over cells of both. :func:`sst.tl.counterfactual_error` has intervals, and rivals beside.
    ``donors``
        With ``truth`` and ``batch_key``: the same, one row a direction and donor.
    ``params``
        The arguments.

    and the columns of :func:`sst.tl.morphology` for the slots that it had to measure.

    Raises
    ------
    KeyError
        No such edit or slot.
    ValueError
        Truth of another shape.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    check_range("n_max", n_max, low=3)
    get_images(table, key)
    entry = table.uns.get(key, {})
    params = entry.get(_keys.PARAMS, {}) if hasattr(entry, "get") else {}
    groupby = check_groupby(table, groupby or params.get("groupby"))
    groups = check_groups(table, groupby)
    labels = table.obs[groupby].astype(str).to_numpy()
    donors = None
    if batch_key is not None:
        check_key(table, "obs", batch_key, name="batch_key")
        check_groups(table, batch_key)
        donors = table.obs[batch_key].astype(str).to_numpy()
    slots = [k for k in (_keys.CROPS, _keys.GENERATED) if k in table.obsm]
    mask = held_out(table) if subset is None else resolve_subset(table, subset)
    mask = mask & _keys.drawn(table, key, *slots)
    rng = np.random.default_rng(seed)
    rows = {}
    for group in groups:
        own = np.flatnonzero(mask & (labels == group))
        rows[group] = np.sort(rng.choice(own, min(n_max, len(own)), replace=False))
    layer = layer or (str(params["layer"]) if params.get("layer") else None)
    counts = get_counts(table, layer)
    every = np.sort(np.concatenate(list(rows.values())))
    chosen_mask = np.zeros(table.n_obs, bool)
    chosen_mask[every] = True
    for slot in slots:
        if not _is_measured(table, slot, every):
            morphology(table, key=slot, subset=chosen_mask)
    chosen = _genes(table, genes, params, counts, every)
    features = _features(table) if features is None else list(features)
    if not features:
        msg = "features is empty: name at least one."
        raise ValueError(msg)
    tables = {"correlations": _correlations(table, counts, chosen, features, slots, rows, donors, seed)}
    if len(slots) == 2:
        tables["agreement"] = _agreement(tables["correlations"])
    model = own_clip(table) if isinstance(clip, str) and clip == "auto" else clip
    if model is not None:
        if not hasattr(model, "embed_images") or not hasattr(model, "embed_expression"):
            msg = f"clip={clip!r}: expected a CLIP, 'auto' or None."
            raise TypeError(msg)
        tables["round_trip"] = round_trip(table, model, key, layer, every, n_candidates, rng)
    if truth is not None:
        tables["truth"] = _against_truth(table, key, truth, rows, features)
        if donors is not None:
            each = {(g, d): own[donors[own] == d] for g, own in rows.items() for d in np.unique(donors[own])}
            found = _against_truth(table, key, truth, each, features)
            found.insert(0, "donor", [d for _, d in found["source"]])
            tables["donors"] = found.assign(source=[g for g, _ in found["source"]])
    _keys.write_params(
        table,
        key_added,
        {
            "key": key,
            "genes": chosen,
            "features": features,
            "groupby": groupby,
            "batch_key": batch_key,
            "clip": None if model is None else str(model.hash),
            "n": {g: len(r) for g, r in rows.items()},
            "n_candidates": n_candidates,
            "layer": layer,
            "seed": seed,
        },
        **tables,
    )
    return table if copy else None


def _is_measured(adata: AnnData, slot: str, rows: np.ndarray) -> bool:
    """Whether the columns of :func:`sst.tl.morphology` are there for these cells, and of the images that are there now."""
    status, entry = f"{slot}_nucleus_status", adata.uns.get(f"{slot}_morphology", {})
    if status not in adata.obs or adata.obs[status].isna().to_numpy()[rows].any():
        return False
    return entry.get(_keys.PARAMS, {}).get("image_hash") == image_hash(adata.obsm[slot])


def _genes(adata: AnnData, genes: Any, params: Any, counts: Any, rows: np.ndarray) -> list[str]:
    if genes is None:
        recorded = params.get("genes")
        if recorded is not None and len(recorded):
            genes = [str(g) for g in recorded]
    if genes is not None:
        return check_genes(list(adata.var_names), genes)
    part = np.log1p(take_rows(counts, rows[:5000]))
    return [str(adata.var_names[g]) for g in np.argsort(-part.var(axis=0), kind="stable")[:8]]


def _features(adata: AnnData) -> list[str]:
    channels = [_keys.column_name(c) for c in channel_names(adata)]
    return ["nucleus_area", "nucleus_texture", *(f"{c}_{w}_mean" for c in channels for w in ("window", "nucleus"))]


def _correlations(
    adata: AnnData,
    counts: Any,
    genes: Sequence[str],
    features: Sequence[str],
    slots: Sequence[str],
    rows: Mapping[str, np.ndarray],
    donors: np.ndarray | None,
    seed: int,
) -> pd.DataFrame:
    out = []
    fields = fields_of(adata, _keys.FOV)
    columns = adata.var_names.get_indexer(list(genes))
    for group, own in rows.items():
        values = take_rows(counts[:, columns], own)
        for slot in slots:
            for feature in features:
                measured = check_key(adata, "obs", f"{slot}_{_keys.column_name(feature)}").to_numpy(float)[own]
                fine = np.isfinite(measured)
                for k, gene in enumerate(genes):
                    x, y = values[fine, k], measured[fine]
                    name = {"gene": gene, "feature": feature, "group": group, "key": slot}
                    of = None if donors is None else donors[own][fine]
                    near = None if fields is None else fields[own][fine]
                    out.append(name | (_correlation(x, y, near, seed) if of is None else _correlation_within(x, y, of)))
    table = pd.DataFrame(out)
    table["q"] = np.nan
    for _, part in table[table["p"].notna()].groupby("key"):
        table.loc[part.index, "q"] = stats.false_discovery_control(part["p"])
    return table


def _correlation(x: np.ndarray, y: np.ndarray, fields: np.ndarray | None = None, seed: int = 0) -> dict[str, Any]:
    """Rank correlation with its interval and P, over fields where there are three or more (``n_fields``; 0: over cells)."""
    rho = p = low = high = float("nan")
    k = 0 if fields is None else len(np.unique(fields))
    k = k if k > 2 else 0
    if len(x) > 3 and np.ptp(x) > 0 and np.ptp(y) > 0:
        found = stats.spearmanr(x, y)
        rho, p = float(found.statistic), float(found.pvalue)
        z = _fisher(rho)
        if k:
            over = recovered_effect(stats.rankdata(x), stats.rankdata(y), fields, n_resamples=400, seed=seed)
            low, high = over.r_low, over.r_high
            error = (_fisher(high) - _fisher(low)) / 3.92
            p = 2 * float(stats.t.sf(abs(z) / error, k - 1)) if error > 0 else float("nan")
        else:
            # Fisher's transform with the variance of a rank correlation (Bonett and Wright, 2000)
            half = 1.96 * np.sqrt((1 + rho**2 / 2) / (len(x) - 3))
            low, high = float(np.tanh(z - half)), float(np.tanh(z + half))
    return {"rho": rho, "low": low, "high": high, "p": p, "n": len(x), "n_fields": k}


def _fisher(r: float) -> float:
    return float(np.arctanh(np.clip(r, -0.999999, 0.999999)))


def _correlation_within(x: np.ndarray, y: np.ndarray, donors: np.ndarray) -> dict[str, Any]:
    """Rank correlation within donors: mean of Fisher's transform over donors, each counting alike."""
    names = np.unique(donors)
    each = [_correlation(x[donors == d], y[donors == d])["rho"] for d in names]
    found = over_donors(np.arctanh(np.clip(np.array(each, dtype=float), -0.999999, 0.999999)), names)
    rho, low, high = (float(np.tanh(v)) for v in (found.mean, found.low, found.high))
    return {"rho": rho, "low": low, "high": high, "p": found.p, "n": len(x), "n_donors": found.n_donors}


def _agreement(table: pd.DataFrame) -> pd.DataFrame:
    wide = table.pivot_table(index=["group", "gene", "feature"], columns="key", values="rho", sort=False, dropna=False)
    wide = wide.dropna().reset_index()
    out = []
    for group, part in wide.groupby("group", sort=False):
        real, made = part[_keys.CROPS].to_numpy(), part[_keys.GENERATED].to_numpy()
        enough = len(part) > 2 and np.ptp(real) > 0 and np.ptp(made) > 0
        out.append(
            {
                "group": str(group),
                "correlation": float(np.corrcoef(real, made)[0, 1]) if enough else float("nan"),
                "mean_difference": float(np.abs(real - made).mean()) if len(part) else float("nan"),
                "pairs": len(part),
            }
        )
    return pd.DataFrame(out)


def round_trip(
    adata: AnnData,
    clip: Any,
    key: str,
    layer: str | None,
    rows: np.ndarray,
    n_candidates: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Whose expression each image is nearest to, among ``n_candidates`` cells: a row a slot of images."""
    pick = np.sort(rng.choice(rows, min(n_candidates, len(rows)), replace=False))
    cells = adata[pick]
    expression = {"before": clip.embed_expression(cells, layer=layer)}
    expression["after"] = clip.embed_expression(cells, layer=key) if key in adata.layers else expression["before"]
    out = []
    for slot in (s for s in (_keys.CROPS, _keys.GENERATED, key) if s in adata.obsm):
        images = clip.embed_images(row_reader(adata.obsm[slot])(pick))
        own = expression["after" if slot == key else "before"]
        likeness = images @ own.T
        rank = (likeness > np.diag(likeness)[:, None]).sum(axis=1)
        row = {
            "key": slot,
            "top1": float((rank == 0).mean()),
            "top5": float((rank < 5).mean()),
            "chance_top1": 1 / len(pick),
            "median_rank": float(np.median(rank)) / max(len(pick) - 1, 1),
            "prefers_edited": float("nan"),
            "n": len(pick),
        }
        if slot == key:
            edited = (images * expression["after"]).sum(1) > (images * expression["before"]).sum(1)
            moved = (expression["after"] != expression["before"]).any(axis=1)
            row["prefers_edited"] = float(edited[moved].mean()) if moved.any() else float("nan")
        out.append(row)
    return pd.DataFrame(out)


def _against_truth(
    adata: AnnData, key: str, truth: Any, rows: Mapping[Any, np.ndarray], features: Sequence[str]
) -> pd.DataFrame:
    wanted = get_images(adata, truth) if isinstance(truth, str) else truth
    if not hasattr(wanted, "shape"):
        msg = f"truth={truth!r}: expected images or a slot of obsm, got {type(truth).__name__}."
        raise TypeError(msg)
    if tuple(wanted.shape) != tuple(adata.obsm[key].shape):
        msg = f"truth: expected images of shape {tuple(adata.obsm[key].shape)}, got {tuple(wanted.shape)}."
        raise ValueError(msg)
    view = NucleusView.of(adata)
    before_key = slot_before(adata, key)
    out = []
    for group, own in rows.items():
        images = {
            "true": row_reader(wanted)(own),
            "real": row_reader(adata.obsm[_keys.CROPS])(own),
            "before": row_reader(adata.obsm[before_key])(own),
            "after": row_reader(adata.obsm[key])(own),
        }
        measured = {name: view.measure(x) for name, x in images.items()}
        row: dict[str, Any] = {"source": group, "n": len(own)}
        for name, function in (("psnr", psnr), ("ssim", ssim)):
            row[name] = float(np.mean(function(images["true"], images["after"])))
            row[f"{name}_unedited"] = float(np.mean(function(images["true"], images["before"])))
        for feature in features:
            column = {name: t[_keys.column_name(feature)].to_numpy(float) for name, t in measured.items()}
            change, true = column["after"] - column["before"], column["true"] - column["real"]
            row[f"{feature}_change"] = float(np.nanmean(change)) if np.isfinite(change).any() else float("nan")
            row[f"{feature}_true_change"] = float(np.nanmean(true)) if np.isfinite(true).any() else float("nan")
            found = recovered_effect(change, true, n_resamples=1)
            row[f"{feature}_recovered"] = found.share if row[f"{feature}_true_change"] else float("nan")
            row[f"{feature}_r"] = found.r
        out.append(row)
    return pd.DataFrame(out)
