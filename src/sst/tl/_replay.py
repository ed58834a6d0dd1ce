"""Repeat an edit from what it recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sst import _keys
from sst._arguments import checked
from sst._settings import logger
from sst._validate import check_key, resolve_table

from ._editing import Drawing, EditRequest, find_model, plain, run_edit
from ._measuring import expression_hash, image_hash

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

FIELDS = {"method", "strength", "clip", "fit_on", "seed"}  # in every record


@checked
def replay(
    adata: AnnData | SpatialData,
    key: str = _keys.EDITED,
    *,
    model: Any = "recorded",
    key_added: str | None = None,
    params: dict[str, Any] | None = None,
    copy: bool = False,
    store: str | Path | None = None,
    devices: int | str | Sequence[str] | None = None,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Repeat an edit from ``uns[key]["params"]``.

    Parameters
    ----------
    adata
        The object that was edited (also after writing and reading), or another one with ``params``.
    key
        Name of the edit.
    model
        ``"recorded"``: the model that was used, by its name on this object or its folder; or as in :func:`sst.tl.edit`.
    key_added
        Name of the new slots (default: ``key``, which overwrites).
    params
        Parameters of an edit of another object.
    copy
        Return an edited copy.
    store, devices
        As for :func:`sst.tl.edit`: no file says where images go.
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes what :func:`sst.tl.edit` writes.

    Raises
    ------
    KeyError
        There is no such edit.
    ValueError
        The model is not the one that was used (its hash differs).
    """
    table = resolve_table(adata, table_key)
    entry: Any = check_key(table, "uns", key) if params is None else {_keys.PARAMS: params}
    recorded: Any = entry.get(_keys.PARAMS) if hasattr(entry, "get") else None
    if not hasattr(recorded, "get") or not set(recorded) >= FIELDS:
        msg = f"{'params' if params is not None else f'uns[{key!r}]'} holds no edit: expected what sst.tl.edit records."
        raise KeyError(msg)
    request = EditRequest.from_params(recorded)
    X = request.counts(table)
    report = dict(entry.get(_keys.REPORT, {}))
    changed = []
    if str(report.get("expression_hash", "")) not in {"", expression_hash(X)}:
        changed.append("counts")
    if _keys.CROPS in table.obsm and str(report.get("crops_hash", "")) not in {"", image_hash(table.obsm[_keys.CROPS])}:
        changed.append("crops")
    if changed:
        logger.warning(
            "the %s have changed since the edit %r was made: the result will differ.", " and the ".join(changed), key
        )
    seed = plain(recorded["seed"])
    if not isinstance(seed, int):
        msg = f"the edit's record (uns[{key!r}], or params=) has seed={seed!r}: not a whole number."
        raise ValueError(msg)
    if isinstance(model, str) and model == "recorded":
        image_model = _recorded_model(table, recorded)
    else:
        image_model = find_model(table, model)
    drawing = Drawing.of(
        **{name: plain(recorded.get(name)) for name in ("fade", "batch_size")},
        seed=seed,
        store=store,
        devices=devices,
    )
    if copy:
        table = table.copy()
    run_edit(table, request, model=image_model, key=key if key_added is None else key_added, drawing=drawing)
    return table if copy else None


def _recorded_model(adata: AnnData, recorded: dict[str, Any]) -> Any:
    if "model_hash" not in recorded:
        return None
    where = recorded.get("model_name", recorded.get("model_folder"))
    if where is None:
        msg = (
            f"the model {recorded['model_hash']} of this edit was not saved: pass model= (or model=None for "
            "expression only)."
        )
        raise ValueError(msg)
    model = find_model(adata, str(where), recorded=True)
    if str(model.hash) != str(recorded["model_hash"]):
        msg = f"the edit was made with model {recorded['model_hash']}, but {where} now holds {model.hash}."
        raise ValueError(msg)
    return model
