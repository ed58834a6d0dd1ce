"""Images of cells before and after an edit."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._settings import logger
from sst._validate import holds_whole_numbers
from sst.tl._measuring import expression_hash, image_hash

if TYPE_CHECKING:
    from anndata import AnnData

PARTS = ("fade_only", "genes_only")  # of an edited reconstruction, beside the whole


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
    if isinstance(model, list | tuple):
        from sst.models import Ensemble

        return Ensemble([find_model(adata, one) for one in model])
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


def check_scale(model: Any, counts: Any, layer: str | None) -> None:
    """Say so if a model that was trained on counts is given fractions, or the other way round."""
    trained = getattr(model.registry, "expression", {})
    if not trained:
        return
    whole = holds_whole_numbers(counts)
    if whole != bool(trained["whole"]):
        logger.warning(
            "the %s model was trained on %s (%s), %s holds %s: its images are of another scale.",
            model.registry.kind,
            "whole numbers" if trained["whole"] else "fractions",
            trained["layer"],
            "X" if layer is None else f"layers[{layer!r}]",
            "whole numbers" if whole else "fractions",
        )


def write_images(adata: AnnData, key: str, images: Any, drawn: np.ndarray | None = None) -> None:
    """Write ``obsm[key]``; where it is not of all cells, ``obs[f"{key}_drawn"]`` says of which."""
    _keys.write_slot(adata, "obsm", key, images)
    column = _keys.drawn_column(key)
    if drawn is None or drawn.all():
        adata.obs = adata.obs.drop(columns=[column], errors="ignore")
    else:
        _keys.write_slot(adata, "obs", column, drawn)
    measured = adata.uns.get(f"{key}_morphology", {}).get(_keys.PARAMS, {}).get("image_hash")
    if measured is not None and measured != image_hash(images):
        logger.warning(
            "the columns of sst.tl.morphology(key=%r) are of the images that were there before: measure again.", key
        )


def forget_images(adata: AnnData, key: str) -> None:
    """Take away the images of an earlier edit of this name, which show another expression."""
    if _keys.PARAMS not in adata.uns.get(key, {}):
        return
    for slot in (key, *(f"{key}_{part}" for part in PARTS)):
        adata.obsm.pop(slot, None)
        adata.obs = adata.obs.drop(columns=[_keys.drawn_column(slot)], errors="ignore")


def make_images(
    adata: AnnData,
    model: Any,
    drawing: Drawing,
    *,
    key: str,
    layer: str | None,
    cells: np.ndarray,
    wanted: np.ndarray | None = None,
    shown: str | None = None,
) -> None:
    """Write ``obsm["generated"]`` (what of it this model did not make already, from this expression) and ``obsm[key]``.

    With an inversion also ``obsm[f"{key}_fade_only"]`` and ``obsm[f"{key}_genes_only"]``. A model that starts from the crop writes
    ``obsm[key]`` alone: its image before is ``obsm["crops"]``.

    ``cells`` were edited, images are made of those ``wanted`` (``None``: of all). Cells that were not edited have the same image in
    both: latent and noise depend on the cell and the seed alone. ``shown`` is the layer that is drawn (``None``: ``key``); it may lie
    beyond the counts of training.
    """
    from sst.models import starts_from

    reading = nullcontext if shown is None else model.read_beyond
    shown = shown or key
    wanted = np.ones(adata.n_obs, dtype=bool) if wanted is None else wanted
    edited = np.flatnonzero(cells)
    part, start = _rows(adata, edited), starts_from(model)
    if start == "code":
        with reading():
            _reconstruct(adata, model, drawing, edited, key=key, layer=layer, wanted=wanted, shown=shown)
        return
    options: dict[str, Any] = {"seed": drawing.seed, "batch_size": drawing.batch_size}
    if start == "crop":
        with reading():
            images = _after(adata, model, part, edited, key, layer=shown, source_layer=layer, **options)
        write_images(adata, key, _among(images, edited, adata.obsm[_keys.CROPS]))
        return
    drawn = _draw_before(adata, model, layer, wanted, options)
    with reading():
        images = _after(adata, model, part, edited, key, layer=shown, **options)
    write_images(adata, key, _among(images, edited, adata.obsm[_keys.GENERATED]), drawn)


def _after(adata: AnnData, model: Any, part: AnnData, edited: np.ndarray, key: str, **options: Any) -> np.ndarray:
    """Images after the edit; of an ensemble their mean, and ``obsm[f"{key}_spread"]`` (n x c float32, 0 where nothing was edited)."""
    if not hasattr(model, "generate_each"):
        return model.generate(part, **options)
    from sst.models import mean_image, spread_of

    each = model.generate_each(part, **options)
    spread = np.zeros((adata.n_obs, each.shape[2]), np.float32)
    spread[edited] = spread_of(each)
    _keys.write_slot(adata, "obsm", f"{key}_spread", spread)
    return mean_image(each)


def _draw_before(
    adata: AnnData, model: Any, layer: str | None, wanted: np.ndarray, options: dict[str, Any]
) -> np.ndarray:
    """Draw those of the wanted cells that ``obsm["generated"]`` does not have yet; which it has then."""
    made_from = {"model_hash": str(model.hash), "seed": options["seed"], "layer": layer or ""}
    made_from["expression_hash"] = expression_hash(adata.X if layer is None else adata.layers[layer])
    made = adata.uns.get(_keys.GENERATED, {}).get(_keys.PARAMS, {})
    fresh = _keys.GENERATED in adata.obsm and int(made.get("n_samples", 1)) == 1
    fresh = fresh and all(made.get(name, "") == value for name, value in made_from.items())
    drawn = _keys.drawn(adata, _keys.GENERATED) if fresh else np.zeros(adata.n_obs, dtype=bool)
    missing = np.flatnonzero(wanted & ~drawn)
    if len(missing):
        images = model.generate(_rows(adata, missing), layer=layer, **options)
        before = adata.obsm[_keys.GENERATED] if drawn.any() else np.zeros((adata.n_obs, *images.shape[1:]), np.uint8)
        drawn = drawn | wanted
        write_images(adata, _keys.GENERATED, _among(images, missing, before), drawn)
        _keys.write_params(adata, _keys.GENERATED, made_from)
    return drawn


def _reconstruct(
    adata: AnnData,
    model: Any,
    drawing: Drawing,
    edited: np.ndarray,
    *,
    key: str,
    layer: str | None,
    wanted: np.ndarray,
    shown: str,
) -> None:
    """Reconstructions: fading changes an image even if no gene does, so both effects are also kept apart."""
    from sst.models import effects_apart

    strength = 1.0 if drawing.fade is None else drawing.fade
    options: dict[str, Any] = {"source_layer": layer, "batch_size": drawing.batch_size}
    images = effects_apart(model, _rows(adata, edited), shown, strength, **options)
    shape = (adata.n_obs, *images["reconstructed"].shape[1:])
    before = _among(images["reconstructed"], edited, np.zeros(shape, np.uint8))
    others = np.setdiff1d(np.flatnonzero(wanted), edited)
    if len(others):
        before[others] = model.generate(_rows(adata, others), layer=layer, **options)
    write_images(adata, _keys.GENERATED, before, wanted)
    _keys.write_params(
        adata, _keys.GENERATED, {"model_hash": str(model.hash), "seed": drawing.seed, "layer": layer or "", "fade": 0.0}
    )
    for name, slot in (("both", key), *((part, f"{key}_{part}") for part in PARTS)):
        write_images(adata, slot, _among(images[name], edited, before), wanted)


def _rows(adata: AnnData, index: np.ndarray) -> AnnData:
    return adata if len(index) == adata.n_obs else adata[index]


def _among(images: np.ndarray, index: np.ndarray, others: Any) -> np.ndarray:
    """Images of some cells among those of all."""
    if len(index) == len(others):
        return images
    whole = np.array(others)
    whole[index] = images
    return whole
