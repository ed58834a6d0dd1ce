"""The effects of an edited reconstruction, taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import _keys
from sst._arguments import checked
from sst._validate import check_key, check_range, resolve_table

from ._editing import Drawing, make_images, write_images
from ._rank_genes_effect import require_model

EFFECTS = ("fade_only", "genes_only", "both")

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
def edit_effects(
    adata: AnnData | SpatialData,
    *,
    model: Any = "last",
    key: str = _keys.EDITED,
    source_layer: str | None = None,
    fade: float = 1.0,
    refine: int = 0,
    refine_steps: int = 0,
    batch_size: int | None = None,
    table_key: str = _keys.TABLE,
    device: str | None = None,
) -> None:
    """Draw what fading alone, the genes alone, and both together do to the reconstructions of real cells.

    With any other image model nothing fades, and there is one effect, that of the genes. With an inversion, the code that copies a cell's pixels fades at the edit's strength, so images change even if no gene does.
    What an edit of genes does is the difference between ``both`` and ``fade_only``, or between ``genes_only`` and the
    reconstruction; it is never that between ``both`` and the reconstruction.

    Parameters
    ----------
    adata
        Object with crops and ``layers[key]`` (:func:`sst.tl.edit`).
    model
        An image model: ``"last"``, a name, a folder or a model.
    key
        Layer with the edited expression, and beginning of the slots' names.
    source_layer
        The unedited expression (``None``: ``X``).
    fade
        Strength of the fade in ``fade_only`` and ``both``.
    refine, refine_steps, batch_size
        As for :meth:`sst.models.Inversion.generate`.
    table_key
        Table of a SpatialData.
    device
        Defaults to the setting.

    Returns
    -------
    ``None``; writes uint8 images n x c x h x w to ``obsm["generated"]`` (reconstruction), ``obsm[f"{key}_fade_only"]``,
    ``obsm[f"{key}_genes_only"]`` and ``obsm[key]`` (both), and ``uns[f"{key}_effects"]``: ``params``, ``report`` (DataFrame: effect x
    channel, mean absolute change of the reconstruction in grey values; ``genes at full fade`` is both against fade only). Without a fade
    ``obsm[key]``, the image before where the model draws one, and the one row ``genes only``.

    Raises
    ------
    KeyError
        The layer is not there.
    TypeError
        The model makes no images.
    """
    from sst.models import effects_apart, image_before, starts_from

    table = resolve_table(adata, table_key)
    check_key(table, "layers", key, name="key")
    if source_layer is not None:
        check_key(table, "layers", source_layer, name="source_layer")
    check_range("fade", fade, low=0, high=1)
    found = require_model(table, model)
    channels = list(found.registry.channels)
    params: dict[str, Any] = {"model_hash": found.hash, "layer": source_layer or "", "key": key}
    if starts_from(found) != "code":
        drawing, every = Drawing(batch_size=batch_size), np.ones(table.n_obs, bool)
        make_images(table, found, drawing, key=key, layer=source_layer, cells=every)
        before = image_before(str(found.registry.kind))
        genes = {"genes only": (table.obsm[key], table.obsm[before])}
        _keys.write_params(table, f"{key}_effects", params, **{_keys.REPORT: _report(genes, channels)})
        return
    images = effects_apart(
        found,
        table,
        key,
        fade,
        source_layer=source_layer,
        refine=refine,
        refine_steps=refine_steps,
        batch_size=batch_size,
        device=device,
    )
    params |= {"fade": fade, "refine": refine, "refine_steps": refine_steps}
    write_images(table, _keys.GENERATED, images["reconstructed"])
    _keys.write_params(table, _keys.GENERATED, {"model_hash": found.hash, "layer": source_layer or "", "seed": 0})
    for name in ("fade_only", "genes_only"):
        write_images(table, f"{key}_{name}", images[name])
    write_images(table, key, images["both"])
    pairs = {name.replace("_", " "): (images[name], images["reconstructed"]) for name in EFFECTS}
    pairs["genes at full fade"] = images["both"], images["fade_only"]
    _keys.write_params(table, f"{key}_effects", params, **{_keys.REPORT: _report(pairs, channels)})


def _report(pairs: dict[str, tuple[Any, Any]], channels: list[str]) -> pd.DataFrame:
    """Mean absolute difference of pairs of images, one value a channel; in blocks, to spare memory."""
    rows = {}
    for name, (x, y) in pairs.items():
        total = np.zeros(x.shape[1])
        for k in range(0, len(x), 1024):
            a, b = (np.asarray(part[k : k + 1024]).astype(np.int16) for part in (x, y))
            total += np.abs(a - b).sum((0, 2, 3))
        rows[name] = total / max(x.size / x.shape[1], 1)
    return pd.DataFrame.from_dict(rows, orient="index", columns=[_keys.column_name(c) for c in channels])
