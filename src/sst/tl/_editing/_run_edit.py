"""Carry an edit out: expression, pictures, report, record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sst import _keys
from sst._files import locked
from sst._settings import logger
from sst._validate import get_counts, is_edit
from sst.editing import EditStats, take_rows
from sst.io.store import write_layer
from sst.models import HALVES, forget_halves, half_of, inputs_of, split_rows, starts_from, write_halves
from sst.tl._measuring import image_hash

from ._images import Drawing, check_scale, forget_images, make_images, model_record, say_floor
from ._latent import learn_latent, show_latent, shown_layer
from ._report import edit_report

if TYPE_CHECKING:
    from anndata import AnnData

    from ._request import EditRequest

_BLOCK = 4096  # cells whose windows are told apart at a time


def run_edit(adata: AnnData, request: EditRequest, *, model: Any, key: str, drawing: Drawing | None = None) -> None:
    """Write what :func:`sst.tl.edit` writes; ``model`` is an image model or ``None``."""
    drawing = drawing or Drawing()
    request = request.with_model(model)
    if model is not None:
        model.registry.check(adata, layer=request.layer)
    edit = request.resolve(adata)
    if model is not None and not is_edit(adata, request.layer):
        check_scale(model, edit.X, request.layer)
    fitted, means = edit.fit()
    assign = edit.assign
    stats = [EditStats() for _ in edit.directions]
    halves = request.part is not None or bool(inputs_of(model))
    if drawing.store is None or halves:
        edited = edit.options.apply(edit.X, fitted, assign, stats=stats)
    else:
        (drawing.store / "layers").mkdir(parents=True, exist_ok=True)
        blocks = (block for _, block in edit.options.stream(edit.X, fitted, assign, stats=stats))
        with locked(drawing.store, "drawn into"):
            edited = write_layer(drawing.store / "layers" / key, blocks, adata.shape)
    report = edit_report(edit, fitted, stats, target_means=means, seed=drawing.seed)
    if edit.batches is not None:
        report["batches"] = edit.batches.table(edit.directions)
    forget_halves(adata, key)
    other = request.other(adata)
    _write(adata, key, edited, other, request, model)
    forget_images(adata, key)
    params = edit.request.to_params() | drawing.to_params() | model_record(adata, model)
    if request.latent:
        latent = learn_latent(adata, edit, getattr(model, "adjusted_for", ""))
        latent = latent.with_shrinkage(getattr(model, "shrinkage", 0.0))
        free = getattr(model, "free_of_noise", False)
        report["latent"] = show_latent(adata, edit, edited, latent, key=key, as_asked=free)
        _write(adata, shown_layer(key), adata.layers[shown_layer(key)], other, request, model)
    if model is not None:
        report["model_hash"] = str(model.hash)
        if starts_from(model) != "expression" and _keys.CROPS in adata.obsm:
            report["crops_hash"] = image_hash(adata.obsm[_keys.CROPS])
        wanted = None if request.subset is None else assign >= 0
        if not request.latent:
            some = np.flatnonzero(assign >= 0)[:2000]
            genes = np.arange(adata.n_vars) if edit.options.genes is None else np.asarray(edit.options.genes)
            say_floor(model, genes, take_rows(edited, some)[:, genes], list(adata.var_names), request.part)
        shown = shown_layer(key) if request.latent else None
        make_images(adata, model, drawing, key=key, shown=shown, layer=request.layer, cells=assign >= 0, wanted=wanted)
    _keys.write_params(adata, key, params, report=report)
    logger.info(
        "edited %d cells (%s), %s genes: layers[%r]%s",
        int((assign >= 0).sum()),
        ", ".join(d.name for d in edit.directions),
        "all" if edit.request.genes is None else len(edit.gene_names),
        key,
        "" if model is None else f", obsm[{key!r}]",
    )


def _write(adata: AnnData, layer: str, edited: Any, other: Any, request: EditRequest, model: Any) -> None:
    """Write edited expression of the windows; its halves too, where one was edited or the model reads them apart."""
    if other is not None:
        write_halves(adata, layer, str(request.part), edited, other)
        return
    _keys.write_slot(adata, "layers", layer, edited)
    if not inputs_of(model):
        return
    read = (edited, get_counts(adata, request.layer), half_of(adata, request.layer, "own"))
    pieces: dict[str, list[Any]] = {half: [] for half in HALVES}
    for start in range(0, adata.n_obs, _BLOCK):
        rows = slice(start, start + _BLOCK)
        for half, values in split_rows(*(take_rows(matrix, rows, np.float32) for matrix in read)).items():
            pieces[half].append(sparse.csr_matrix(values) if sparse.issparse(edited) else values)
    for half, parts in pieces.items():
        whole = sparse.vstack(parts, format="csr") if sparse.issparse(edited) else np.concatenate(parts)
        _keys.write_slot(adata, "layers", _keys.half_layer(layer, half), whole)
