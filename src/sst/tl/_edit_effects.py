"""The effects of an edited reconstruction, taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import _keys
from sst._arguments import checked
from sst._validate import check_key, check_range, resolve_table

from ._editing import Drawing, make_images
from ._rank_genes_effect import require_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
    store: str | Path | None = None,
    devices: int | str | Sequence[str] | None = None,
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
    store, devices
        As for :func:`sst.tl.edit`.
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
    from sst.models import image_before, starts_from

    table = resolve_table(adata, table_key)
    check_key(table, "layers", key, name="key")
    if source_layer is not None:
        check_key(table, "layers", source_layer, name="source_layer")
    check_range("fade", fade, low=0, high=1)
    found = require_model(table, model)
    channels = list(found.registry.channels)
    params: dict[str, Any] = {"model_hash": found.hash, "layer": source_layer or "", "key": key}
    if device is not None:
        found.to(device)
    drawing = Drawing.of(
        fade=fade, batch_size=batch_size, refine=refine, refine_steps=refine_steps, store=store, devices=devices
    )
    make_images(table, found, drawing, key=key, layer=source_layer, cells=np.ones(table.n_obs, bool))
    after, before = table.obsm[key], table.obsm[image_before(str(found.registry.kind))]
    pairs = {"genes only": (after, before)}
    if starts_from(found) == "code":
        params |= {"fade": fade, "refine": refine, "refine_steps": refine_steps}
        fade_only, genes_only = (table.obsm[f"{key}_{part}"] for part in ("fade_only", "genes_only"))
        pairs = {"fade only": (fade_only, before), "genes only": (genes_only, before), "both": (after, before)}
        pairs["genes at full fade"] = after, fade_only
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
