"""Images of cells before and after an edit."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Drawing:
    """How images are drawn.

    Attributes
    ----------
    seed
        Of latent and noise, which depend on the cell's name and the seed alone.
    fade
        For an inversion: how far the code that copies the cell's pixels fades; ``None``: what suits the caller.
    batch_size
        Cells per batch; ``None``: what suits the device.
    """

    seed: int = 0
    fade: float | None = None
    batch_size: int | None = None

    def to_params(self) -> dict[str, Any]:
        """What is noted of it."""
        return dataclasses.asdict(self)


def find_model(adata: AnnData, model: Any, *, recorded: bool = False) -> Any:
    """The image model that ``model`` means; ``None`` if ``"last"`` is asked for and none was trained on the object.

    ``recorded``: the object says so, not the user.
    """
    if model is None:
        return None
    if isinstance(model, str) and model == "last" and "last" not in adata.uns.get(_keys.SST, {}):
        logger.info("no model was trained on this object: expression is edited, no images are made.")
        return None
    found = model
    if not hasattr(model, "generate"):
        from sst.models import resolve

        found = resolve(adata, model, recorded=recorded)
    if not hasattr(found, "generate"):
        msg = f"model={model!r} is a {found.registry.kind}, which makes no images. Possible: a GAN, an editor or an inversion."
        raise TypeError(msg)
    return found


def model_record(adata: AnnData, model: Any) -> dict[str, Any]:
    """What is noted of a model: its hash, kind, and name on this object if it has one."""
    if model is None:
        return {}
    record = {"model_hash": str(model.hash), "model_kind": str(model.registry.kind)}
    from sst.models import named_folders

    folder = getattr(model, "folder", None)
    for name, place in named_folders(adata).items():
        if folder is not None and str(place) == str(folder):
            record["model_name"] = str(name)
    if folder is not None:
        record["model_folder"] = str(folder)
    return record


def make_images(
    adata: AnnData,
    model: Any,
    drawing: Drawing,
    *,
    key: str,
    layer: str | None,
    cells: np.ndarray,
    shown: str | None = None,
) -> None:
    """Draw the layer ``shown``, which may lie beyond the counts of training (``None``: ``key``): write ``obsm["generated"]`` (unless this model made it already) and ``obsm[key]``.

    With an inversion also ``obsm[f"{key}_fade_only"]`` and ``obsm[f"{key}_genes_only"]``. A model that starts from the crop writes
    ``obsm[key]`` alone: its image before is ``obsm["crops"]``.

    Cells that were not edited have the same image in both: latent and noise depend on the cell and the seed alone.
    """
    from sst.models import starts_from

    reading = nullcontext if shown is None else model.read_beyond
    shown = shown or key
    index = np.flatnonzero(cells)
    part = adata if len(index) == adata.n_obs else adata[index]
    start = starts_from(model)
    if start == "code":
        with reading():
            _reconstruct(adata, part, index, model, drawing, key=key, layer=layer, shown=shown)
        return
    options: dict[str, Any] = {"seed": drawing.seed, "batch_size": drawing.batch_size}
    if start == "crop":
        with reading():
            edited = model.generate(part, layer=shown, source_layer=layer, **options)
        _keys.write_slot(adata, "obsm", key, _among(edited, index, adata.obsm[_keys.CROPS]))
        return
    wanted = {"model_hash": str(model.hash), "seed": drawing.seed, "layer": layer or ""}
    made = adata.uns.get(_keys.GENERATED, {}).get(_keys.PARAMS, {})
    fresh = _keys.GENERATED in adata.obsm and int(made.get("n_samples", 1)) == 1
    fresh = fresh and all(made.get(name, "") == value for name, value in wanted.items())
    if not fresh:
        images = model.generate(adata, layer=layer, **options)
        _keys.write_slot(adata, "obsm", _keys.GENERATED, images)
        _keys.write_params(adata, _keys.GENERATED, wanted)
    with reading():
        edited = model.generate(part, layer=shown, **options)
    _keys.write_slot(adata, "obsm", key, _among(edited, index, adata.obsm[_keys.GENERATED]))


def _reconstruct(
    adata: AnnData,
    part: AnnData,
    index: np.ndarray,
    model: Any,
    drawing: Drawing,
    *,
    key: str,
    layer: str | None,
    shown: str,
) -> None:
    """Reconstructions: fading changes an image even if no gene does, so both effects are also kept apart."""
    from sst.models import effects_apart

    strength = 1.0 if drawing.fade is None else drawing.fade
    images = effects_apart(model, part, shown, strength, source_layer=layer, batch_size=drawing.batch_size)
    before = images["reconstructed"]
    if len(index) < adata.n_obs:
        before = model.generate(adata, layer=layer, source_layer=layer, batch_size=drawing.batch_size)
    _keys.write_slot(adata, "obsm", _keys.GENERATED, before)
    _keys.write_params(
        adata, _keys.GENERATED, {"model_hash": str(model.hash), "seed": drawing.seed, "layer": layer or "", "fade": 0.0}
    )
    for name, slot in (("both", key), ("fade_only", f"{key}_fade_only"), ("genes_only", f"{key}_genes_only")):
        _keys.write_slot(adata, "obsm", slot, _among(images[name], index, before))


def _among(images: np.ndarray, index: np.ndarray, others: Any) -> np.ndarray:
    """Images of some cells among those of all."""
    if len(index) == len(others):
        return images
    whole = np.array(others)
    whole[index] = images
    return whole
