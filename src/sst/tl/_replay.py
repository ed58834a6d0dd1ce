"""Repeat an edit from what it recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys, editing
from sst._settings import logger
from sst._validate import check_key, resolve_table

from ._edit import edit
from ._editing import expression_hash, find_model

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def replay(
    adata: AnnData | SpatialData,
    key: str = _keys.EDITED,
    *,
    model: Any = "recorded",
    key_added: str | None = None,
    params: dict[str, Any] | None = None,
    copy: bool = False,
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
    entry = check_key(table, "uns", key) if params is None else {_keys.PARAMS: params}
    if _keys.PARAMS not in entry or "method" not in entry[_keys.PARAMS]:
        msg = f"uns[{key!r}] holds no edit."
        raise KeyError(msg)
    recorded = dict(entry[_keys.PARAMS])
    before = str(entry.get(_keys.REPORT, {}).get("expression_hash", ""))
    layer = _plain(recorded.get("layer"))
    X = table.X if layer is None else check_key(table, "layers", layer, name="layer")
    if before and expression_hash(X) not in {"", before}:
        logger.warning("the counts have changed since the edit %r was made: the result will differ.", key)
    return edit(
        table,
        _list(recorded.get("genes")),
        _plain(recorded.get("groupby")),
        source=_plain(recorded.get("source")),
        target=_plain(recorded.get("target")),
        method=_method(recorded),
        top_k=_plain(recorded.get("top_k")),
        strength=float(recorded["strength"]),
        clip=bool(recorded["clip"]),
        subset=_subset(recorded.get("subset")),
        layer=layer,
        model=_recorded_model(table, recorded) if isinstance(model, str) and model == "recorded" else model,
        key_added=key if key_added is None else key_added,
        copy=copy,
        value=_recorded_value(recorded),
        fit_on=str(recorded["fit_on"]),
        fit_subset=_subset(recorded.get("fit_subset")),
        fade=_plain(recorded.get("fade")),
        seed=int(recorded["seed"]),
        batch_size=_plain(recorded.get("batch_size")),
    )


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
    model = find_model(adata, str(where))
    if str(model.hash) != str(recorded["model_hash"]):
        msg = f"the edit was made with model {recorded['model_hash']}, but {where} now holds {model.hash}."
        raise ValueError(msg)
    return model


def _method(recorded: dict[str, Any]) -> Any:
    name = str(recorded["method"])
    if name in editing.METHODS:
        return name
    operator = getattr(editing, name, None)
    if operator is None or name == "FromLayer":
        msg = f"the edit was made with an operator {name} of your own: repeat it with sst.tl.edit(method=...)."
        raise ValueError(msg)
    options = {k: _plain(v) for k, v in dict(recorded.get("method_options", {})).items()}
    options |= dict.fromkeys(_list(recorded.get("method_unset")) or [])
    return operator(**options)


def _recorded_value(recorded: dict[str, Any]) -> Any:
    genes = _list(recorded.get("value_genes"))
    if genes:
        return dict(zip(genes, np.asarray(recorded["value"], dtype=float).tolist(), strict=True))
    return _plain(recorded.get("value"))


def _plain(value: Any) -> Any:
    """A scalar as Python's own type (files give numpy's)."""
    return value.item() if isinstance(value, np.generic) else value


def _list(value: Any) -> list[str] | None:
    return None if value is None else [str(v) for v in np.atleast_1d(np.asarray(value, dtype=object))]


def _subset(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "items"):
        return {k: _list(v) for k, v in value.items()}
    return np.asarray(value, dtype=bool)
