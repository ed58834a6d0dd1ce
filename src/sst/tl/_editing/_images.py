"""Images of cells before and after an edit."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sst import _keys
from sst._settings import logger
from sst._validate import holds_whole_numbers
from sst.io.store import Slot, among
from sst.tl._measuring import expression_hash, image_hash

from ._crew import find_devices
from ._pictures import draw_cells, pictures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

PARTS = ("fade_only", "genes_only")  # of an edited reconstruction, beside the whole

OFTEN = 0.01  # share of cells below what a model draws, from which on it is said


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
    refine, refine_steps
        Of an inversion's codes: :meth:`sst.models.Inversion.generate`.
    store
        Folder that images are drawn into; ``None``: memory, as long as they fit. Not noted: what a file says chooses no folder.
    devices
        That share the cells; ``None``: where the model is. Not noted either.
    """

    seed: int = 0
    fade: float | None = None
    batch_size: int | None = None
    refine: int = 0
    refine_steps: int = 0
    store: Path | None = None
    devices: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls, *, store: str | Path | None = None, devices: int | str | Sequence[str] | None = None, **options: Any
    ) -> Self:
        """From the arguments of a public function."""
        return cls(store=None if store is None else Path(store), devices=find_devices(devices), **options)

    def to_params(self) -> dict[str, Any]:
        """What is noted of it."""
        return {"seed": self.seed, "fade": self.fade, "batch_size": self.batch_size}


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


def say_floor(model: Any, genes: np.ndarray, edited: np.ndarray, names: Sequence[str], part: str | None = None) -> None:
    """Say which genes were set lower than a model draws them: what no training cell had is drawn as the lowest that one had.

    ``edited`` is the expression of some cells (m x k) in the edited genes, ``names`` are those of all genes of the object; ``part``: the half of
    the window that it is of.
    """
    from sst.models import inputs_of

    lowest = getattr(model, "lowest", lambda: None)()
    inputs = inputs_of(model)
    if lowest is None or (inputs and part not in inputs):
        return
    if inputs:
        lowest = lowest.reshape(len(inputs), -1)[inputs.index(part)]
    floor = np.zeros(len(names))
    floor[model.registry.gene_index([str(n) for n in names])] = lowest
    below = (edited < floor[genes]).mean(axis=0) > OFTEN
    if below.any():
        said = [f"{names[g]} (as {floor[g]:.3g})" for g in np.asarray(genes)[below][:8]]
        logger.warning(
            "%s%s: more than 1 %% of the cells are to have fewer counts than all but 0.1 %% of the training cells had; they are drawn with that many.",
            ", ".join(said),
            f" and {below.sum() - 8} more" if below.sum() > 8 else "",
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

    beyond = shown is not None
    shown = shown or key
    wanted = np.ones(adata.n_obs, dtype=bool) if wanted is None else wanted
    edited, start = np.flatnonzero(cells), starts_from(model)
    if start == "code":
        _reconstruct(adata, model, drawing, edited, key=key, layer=layer, wanted=wanted, shown=shown, beyond=beyond)
        return
    drawn, others = None, adata.obsm.get(_keys.CROPS)
    if start == "expression":
        drawn = draw_before(adata, model, drawing, layer=layer, wanted=wanted)
        others = adata.obsm[_keys.GENERATED]
    given = {"source_layer": layer} if start == "crop" else {}
    layers = [shown, layer] if start == "crop" else [shown]
    images = draw_images(
        adata, edited, model, drawing, slot=key, layer=shown, layers=layers, beyond=beyond, spread=True, **given
    )
    write_images(adata, key, among(images, edited, others), drawn)


def draw_images(
    adata: AnnData,
    index: np.ndarray,
    model: Any,
    drawing: Drawing,
    *,
    slot: str,
    layer: str | None,
    layers: Sequence[str | None] | None = None,
    beyond: bool = False,
    spread: bool = False,
    **given: Any,
) -> Any:
    """Images of the cells ``index`` under ``layer``.

    ``layers``: all that the model reads; ``given``: more for its ``generate``; ``beyond``: read as it is where it lies outside the range of
    training; ``spread``: of an ensemble, write ``obsm[f"{slot}_spread"]`` too (n x c float32, 0 where nothing was drawn).
    """
    given |= {"layer": layer, "seed": drawing.seed, "batch_size": drawing.batch_size}
    apart = f"{slot}_spread" if spread and hasattr(model, "generate_each") else None
    slots = {slot: pictures(model)} | ({apart: Slot((len(model.registry.channels),), np.dtype("f4"))} if apart else {})
    images = draw_cells(
        adata,
        index,
        model,
        partial(_generate, slot=slot, apart=apart, beyond=beyond, given=given),
        slots=slots,
        layers=layers or [layer],
        about={"seed": drawing.seed, "layers": [layer or "", given.get("source_layer") or ""]},
        drawing=drawing,
    )
    if apart:
        whole = np.zeros((adata.n_obs, *images[apart].shape[1:]), np.float32)
        whole[index] = images[apart]
        _keys.write_slot(adata, "obsm", apart, whole)
    return images[slot]


def _generate(
    model: Any, part: AnnData, *, slot: str, apart: str | None, beyond: bool, given: dict[str, Any], **options: Any
) -> dict[str, np.ndarray]:
    """Images of some cells, and (``apart``) how far an ensemble's models lie apart."""
    from sst.models import mean_image, spread_of

    with model.read_beyond() if beyond else nullcontext():
        if apart is None:
            return {slot: model.generate(part, **given, **options)}
        each = model.generate_each(part, **given, **options)
        return {slot: mean_image(each), apart: spread_of(each)}


def draw_before(adata: AnnData, model: Any, drawing: Drawing, *, layer: str | None, wanted: np.ndarray) -> np.ndarray:
    """Draw those of the wanted cells that ``obsm["generated"]`` does not have yet; returns which it has then."""
    made_from = {"model_hash": str(model.hash), "seed": drawing.seed, "layer": layer or ""}
    made_from["expression_hash"] = expression_hash(adata.X if layer is None else adata.layers[layer])
    made = adata.uns.get(_keys.GENERATED, {}).get(_keys.PARAMS, {})
    fresh = _keys.GENERATED in adata.obsm and int(made.get("n_samples", 1)) == 1
    fresh = fresh and all(made.get(name, "") == value for name, value in made_from.items())
    drawn = _keys.drawn(adata, _keys.GENERATED) if fresh else np.zeros(adata.n_obs, dtype=bool)
    missing = np.flatnonzero(wanted & ~drawn)
    if len(missing):
        images = draw_images(adata, missing, model, drawing, slot=_keys.GENERATED, layer=layer)
        before = adata.obsm[_keys.GENERATED] if drawn.any() else np.zeros((adata.n_obs, *images.shape[1:]), np.uint8)
        drawn = drawn | wanted
        write_images(adata, _keys.GENERATED, among(images, missing, before), drawn)
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
    beyond: bool,
) -> None:
    """Reconstructions: fading changes an image even if no gene does, so both effects are also kept apart."""
    strength = 1.0 if drawing.fade is None else drawing.fade
    names = {"reconstructed": _keys.GENERATED, "both": key} | {part: f"{key}_{part}" for part in PARTS}
    refine = {name: value for name in ("refine", "refine_steps") if (value := getattr(drawing, name))}
    given = {"source_layer": layer, "batch_size": drawing.batch_size} | refine
    images = draw_cells(
        adata,
        edited,
        model,
        partial(_apart, names=names, shown=shown, fade=strength, beyond=beyond, given=given),
        slots=dict.fromkeys(names.values(), pictures(model)),
        layers=[shown, layer],
        about={"fade": strength, "layers": [shown, layer or ""]} | refine,
        drawing=drawing,
    )
    before = images.pop(_keys.GENERATED)
    before = among(before, edited, np.zeros((adata.n_obs, *before.shape[1:]), np.uint8))
    others = np.setdiff1d(np.flatnonzero(wanted), edited)
    if len(others):
        aside = None if drawing.store is None else drawing.store.with_name(f"{drawing.store.stem}.unedited.zarr")
        drawn = draw_images(
            adata,
            others,
            model,
            dataclasses.replace(drawing, store=aside),
            slot=_keys.GENERATED,
            layer=layer,
            source_layer=layer,
            beyond=beyond,
        )
        before = among(drawn, others, before)
    write_images(adata, _keys.GENERATED, before, wanted)
    _keys.write_params(
        adata, _keys.GENERATED, {"model_hash": str(model.hash), "seed": drawing.seed, "layer": layer or "", "fade": 0.0}
    )
    for slot, made in images.items():
        write_images(adata, slot, among(made, edited, before), wanted)


def _apart(
    model: Any,
    part: AnnData,
    *,
    names: dict[str, str],
    shown: str,
    fade: float,
    beyond: bool,
    given: dict[str, Any],
    **options: Any,
) -> dict[str, np.ndarray]:
    """The effects of an edited reconstruction of some cells, apart, by slot."""
    from sst.models import effects_apart

    with model.read_beyond() if beyond else nullcontext():
        images = effects_apart(model, part, shown, fade, **given, **options)
    return {names[name]: value for name, value in images.items()}
