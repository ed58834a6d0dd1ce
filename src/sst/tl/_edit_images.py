"""Images of cells before and after an edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData


def find_model(adata: AnnData, model: Any) -> Any:
    """The image model that ``model`` means; ``None`` if ``"last"`` is asked for and none was trained on the object."""
    if model is None:
        return None
    if isinstance(model, str) and model == "last" and "last" not in adata.uns.get(_keys.SST, {}):
        logger.info("no model was trained on this object: expression is edited, no images are made.")
        return None
    if hasattr(model, "generate"):
        return model
    from sst import models

    return models.resolve(adata, model)


def model_record(adata: AnnData, model: Any) -> dict[str, Any]:
    """What is noted of a model: its hash, kind, and name on this object if it has one."""
    if model is None:
        return {}
    record = {"model_hash": str(model.hash), "model_kind": str(model.registry.kind)}
    trained = adata.uns.get(_keys.SST, {})
    folder = getattr(model, "folder", None)
    for name, place in dict(trained.get("models", {})).items():
        if folder is not None and str(place) == str(folder):
            record["model_name"] = str(name)
    if folder is not None:
        record["model_folder"] = str(folder)
    return record


def make_images(
    adata: AnnData,
    model: Any,
    *,
    key: str,
    layer: str | None,
    cells: np.ndarray,
    seed: int,
    fade: float | None,
    batch_size: int | None,
) -> None:
    """Write ``obsm["generated"]`` (unless this model made it already) and ``obsm[key]``.

    Cells that were not edited have the same image in both: latent and noise depend on the cell and the seed alone.
    """
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size}
    inversion = model.registry.kind == "inversion"
    before = {**options, "fade": 0.0} if inversion else options
    after = {**options, "fade": 1.0 if fade is None else fade} if inversion else options
    wanted = {"model_hash": str(model.hash), "seed": seed, "layer": layer or ""}
    made = adata.uns.get(_keys.GENERATED, {}).get(_keys.PARAMS, {})
    fresh = _keys.GENERATED in adata.obsm and all(made.get(name, "") == value for name, value in wanted.items())
    if not fresh:
        images = model.generate(adata, layer=layer, **before)
        _keys.write_slot(adata, "obsm", _keys.GENERATED, images)
        _keys.write_params(adata, _keys.GENERATED, wanted)
    index = np.flatnonzero(cells)
    part = adata if len(index) == adata.n_obs else adata[index]
    edited = model.generate(part, layer=key, **after)
    if len(index) < adata.n_obs:
        whole = np.array(adata.obsm[_keys.GENERATED])
        whole[index] = edited
        edited = whole
    _keys.write_slot(adata, "obsm", key, edited)
