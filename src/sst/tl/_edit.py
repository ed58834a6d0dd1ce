"""Edit expression toward another group, and make the images of the edited cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._settings import logger
from sst._validate import check_genes, check_key, check_range, resolve_table
from sst.editing import (
    NO_TARGET,
    EditStats,
    Operator,
    apply,
    check_counts,
    get_operator,
    resolve_genes,
    rows_of,
    stream,
)

from ._editing import Direction, edit_report, find_model, make_images, model_record, plan_directions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from sst.editing import Fitted


def edit(
    adata: AnnData | SpatialData,
    genes: str | Path | Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    groupby: str | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
    method: str | Operator = "scm",
    top_k: int | None = 1,
    strength: float = 1.0,
    clip: bool = True,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    layer: str | None = None,
    model: Any = "last",
    key_added: str = _keys.EDITED,
    copy: bool = False,
    value: float | Mapping[str, float] | str | None = None,
    fit_on: str = "train",
    fit_subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    fade: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Edit genes of cells toward another group, and show what the cells would look like.

    Parameters
    ----------
    adata
        Paired cells.
    genes
        Genes to change: a name, a list, ``{set: genes}``, a GMT file (``"sets.gmt:NAME"`` for one of its sets), or
        ``None`` for all. All others keep their values, bit by bit (as float32).
    groupby
        Column of ``obs`` with the groups (default: the model's, else ``"condition"``).
    source
        Edit cells of this group (default: of every group but ``target``).
    target
        Group to go toward. Without source and target, of two groups each cell goes toward the other.
    method
        ``"scm"`` (the paper's rotation of eigenvectors), ``"ot"``, ``"ot_centered"``, ``"mean"``, ``"quantile"``,
        ``"scale"``, ``"knockout"``, ``"set"``, ``"from_layer"``, or an operator of :mod:`sst.editing`.
    top_k
        For ``"scm"``: leading components to scale; ``None`` for all (full match of the second moments).
    strength
        0 leaves the cells, 1 is the whole edit, between lies the straight line.
    clip
        Set negative values to 0.
    subset
        Cells to edit: boolean mask, query of ``obs``, or ``{key: [categories]}``.
    layer
        Counts to edit, ``None`` for ``X``.
    model
        Image model: ``"last"`` (last trained on this object; none: expression only), a name, a folder, a model, or
        ``None`` for expression only.
    key_added
        Name of the slots.
    copy
        Return an edited copy (of the table).
    value
        For ``"scale"`` the factor, for ``"set"`` the counts (a number, or ``{gene: number}``), for ``"from_layer"`` the
        name of the layer with the counterfactual.
    fit_on
        ``"train"``: if there is ``obs["split"]``, groups are learnt from its training cells alone; ``"all"``: from all cells.
    fit_subset
        Learn from these cells of the groups only (same forms as ``subset``), e.g. one cell type.
    fade
        For an inversion: how far the code that copies the cell's pixels fades in the edited image (default 1).
    seed
        Of latent and noise, which depend on the cell's name and the seed alone.
    batch_size
        Cells per batch when images are made.
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes

    ``layers[key_added]`` : n x p, float32
        Edited expression, CSR if the counts are sparse.
    ``obsm["generated"]``, ``obsm[key_added]`` : n x c x h x w, uint8
        Images before and after (with a model); the former is kept if this model and seed made it. With an inversion,
        whose images also change because the code of the pixels fades, ``obsm[f"{key_added}_fade_only"]`` (genes as they
        were) and ``obsm[f"{key_added}_genes_only"]`` (nothing faded) keep the two apart.
    ``uns[key_added]["params"]``
        What :func:`sst.tl.replay` needs to repeat the edit.
    ``uns[key_added]["report"]``
        ``directions`` (DataFrame: cells learnt from and edited, error of the second moments before, after and without
        clipping, share and mass clipped, displacement, distances to real target cells against the real-to-real floor),
        ``genes`` (DataFrame: means of source, target and edited cells), ``expression_hash``, ``model_hash``, ``version``.

    Raises
    ------
    KeyError
        A gene, column, layer or category is unknown.
    ValueError
        A group is unknown, empty or of one cell; a subset is empty; counts are NaN or negative; a gene asked for by name
        is constant over source and target.

    References
    ----------
    Wu and Koelzer, *SST-editing: in silico spatial transcriptomic editing at single-cell resolution* (2024).
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    check_range("strength", strength)
    image_model = find_model(table, model)
    if groupby is None and image_model is not None:
        groupby = getattr(image_model.registry, "groupby", None) or None
    X = table.X if layer is None else check_key(table, "layers", layer, name="layer")
    names = list(table.var_names)
    chosen = resolve_genes(genes, names)
    index = None if chosen is None else np.sort(table.var_names.get_indexer(chosen))
    if image_model is not None:
        image_model.registry.check(table, layer=layer)
    check_counts(X, names, name="X" if layer is None else f"layers[{layer!r}]")
    operator = get_operator(method, top_k=top_k, value=operator_value(table, method, value))
    directions = plan_directions(
        table,
        groupby,
        source=source,
        target=target,
        method=method,
        subset=subset,
        fit_on=fit_on,
        fit_subset=fit_subset,
    )
    fitted, target_means = fit_directions(
        X, operator, directions, genes=index, named=chosen is not None, var_names=names
    )
    assign = np.full(table.n_obs, -1)
    for number, direction in enumerate(directions):
        assign[direction.cells] = number
    stats = [EditStats() for _ in directions]
    edited = apply_edit(X, fitted, assign, genes=index, strength=strength, clip=clip, stats=stats)
    report = edit_report(
        X,
        directions,
        fitted,
        stats,
        genes=index,
        var_names=names,
        strength=strength,
        clip=clip,
        seed=seed,
        target_means=target_means,
    )
    _keys.write_slot(table, "layers", key_added, edited)
    params = {
        "genes": chosen,
        "groupby": groupby,
        "source": source,
        "target": target,
        "top_k": top_k,
        "strength": float(strength),
        "clip": clip,
        "subset": _recordable(subset),
        "layer": layer,
        "fit_on": fit_on,
        "fit_subset": _recordable(fit_subset),
        "fade": fade,
        "seed": seed,
        "batch_size": batch_size,
        **_record_method(method),
        **_record_value(value),
        **model_record(table, image_model),
    }
    if image_model is not None:
        report["model_hash"] = str(image_model.hash)
        make_images(
            table,
            image_model,
            key=key_added,
            layer=layer,
            cells=assign >= 0,
            seed=seed,
            fade=fade,
            batch_size=batch_size,
        )
    _keys.write_params(table, key_added, params, report=report)
    logger.info(
        "edited %d cells (%s), %s genes: layers[%r]%s",
        int((assign >= 0).sum()),
        ", ".join(d.name for d in directions),
        "all" if chosen is None else len(chosen),
        key_added,
        "" if image_model is None else f", obsm[{key_added!r}]",
    )
    return table if copy else None


def fit_directions(
    X: Any,
    operator: Operator,
    directions: Sequence[Direction],
    *,
    genes: np.ndarray | None,
    named: bool,
    var_names: Sequence[str],
) -> tuple[list[Fitted], list[np.ndarray | None]]:
    """Fit an operator to each direction; groups that serve twice are summarised once.

    Returns
    -------
    The edits, and the mean of each gene over the target's cells (``None`` where the operator does not know it).

    Raises
    ------
    ValueError
        Genes asked for by name are constant over source and target: there is nothing to learn.
    """
    summaries: dict[bytes, Any] = {}

    def summary(mask: np.ndarray) -> Any:
        key = np.packbits(mask).tobytes()
        if key not in summaries:
            summaries[key] = operator.summarize(rows_of(X, mask))
        return summaries[key]

    fitted: list[Fitted] = []
    means: list[np.ndarray | None] = []
    for direction in directions:
        if direction.target is None:
            fitted.append(operator.fit(None, None))
            means.append(None)
            continue
        first, second = summary(direction.fit_source), summary(direction.fit_target)
        if hasattr(first, "constant"):
            same = first.constant & second.constant & np.isclose(first.mean, second.mean)
            same = np.flatnonzero(same if genes is None else np.isin(np.arange(len(same)), genes) & same)
            if len(same):
                labels = [str(var_names[g]) for g in same[:8]]
                more = f" and {len(same) - 8} more" if len(same) > 8 else ""
                text = f"genes {labels}{more} are constant over {direction.name}: there is nothing to learn."
                if named:
                    msg = f"{text} Leave them out, or use method='set' or 'scale'."
                    raise ValueError(msg)
                logger.warning(text)
        fitted.append(operator.fit(first, second))
        means.append(getattr(second, "mean", None))
    return fitted, means


def apply_edit(
    X: Any,
    fitted: Sequence[Fitted],
    assign: np.ndarray,
    *,
    genes: np.ndarray | None,
    strength: float,
    clip: bool,
    stats: Sequence[EditStats],
) -> Any:
    """Edited matrix (lazy for dask, but the statistics are gathered in a pass of their own)."""
    options: dict[str, Any] = {"genes": genes, "strength": strength, "clip": clip}
    if type(X).__module__.split(".")[0] == "dask":
        for _ in stream(X, fitted, assign, stats=stats, **options):
            pass
        return apply(X, fitted, assign, **options)
    return apply(X, fitted, assign, stats=stats, **options)


def operator_value(adata: AnnData, method: str | Operator, value: Any) -> Any:
    """The value as operators want it: a number, one per gene, or a matrix."""
    if method == "from_layer" and value is not None:
        if not isinstance(value, str):
            msg = f"value={value!r}: method='from_layer' needs the name of a layer."
            raise TypeError(msg)
        return check_key(adata, "layers", value, name="value")
    if isinstance(value, Mapping):
        if method not in NO_TARGET:
            msg = f"value={value!r}: method={method!r} takes none."
            raise ValueError(msg)
        chosen = check_genes(list(adata.var_names), value, name="value")
        whole = np.full(adata.n_vars, 1.0 if method == "scale" else 0.0)
        whole[adata.var_names.get_indexer(chosen)] = [float(value[g]) for g in chosen]
        return whole
    return value


def _recordable(subset: Any) -> Any:
    """A subset in a form that can be stored: mask, query, or a dict of lists."""
    if subset is None or isinstance(subset, str):
        return subset
    if hasattr(subset, "items"):
        return {str(k): [str(v)] if isinstance(v, str) else [str(one) for one in v] for k, v in subset.items()}
    return np.asarray(subset, dtype=bool)


def _record_method(method: str | Operator) -> dict[str, Any]:
    if isinstance(method, str):
        return {"method": method}
    record: dict[str, Any] = {"method": type(method).__name__}
    if dataclasses.is_dataclass(method):
        options = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
        simple = {k: v for k, v in options.items() if v is None or isinstance(v, (str, int, float, bool, np.ndarray))}
        record["method_options"] = simple
        record["method_unset"] = [k for k, v in simple.items() if v is None]
    return record


def _record_value(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {"value_genes": [str(g) for g in value], "value": [float(v) for v in value.values()]}
    return {"value": value}
