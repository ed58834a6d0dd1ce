"""The names of every slot this package reads or writes, and the one writer that logs what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._settings import logger
from ._strings import plain_strings

if TYPE_CHECKING:
    from anndata import AnnData

# obsm
CROPS = "crops"  # n x c x h x w, real images
GENERATED = "generated"  # n x c x h x w, images made from unedited expression
EDITED = "edited"  # n x c x h x w images (obsm) and n x p expression (layers) after an edit
SPATIAL = "spatial"  # n x 2, window centre in global units (x, y)
SPATIAL_PX = "spatial_px"  # n x 2, window centre in pixels of its image (x, y)
X_CLIP_IMAGE = "X_clip_image"  # n x d
X_CLIP_EXPRESSION = "X_clip_expression"  # n x d

# layers
SEGMENTED = "segmented"  # n x p, counts of the segmented cell

# obs
CONDITION = "condition"  # the default grouping
SPLIT = "split"  # "train" | "test" (| "dropped": overlaps a window of the other split)
FOV = "fov"
SAMPLE = "sample"
DONOR = "donor"  # whose slide it is
TILE = "tile"

# uns
BRIGHTFIELD = "brightfield"  # in uns["crops"], where images are colours in transmitted light (H&E)
SST = "sst"  # {"models": name -> folder, "last": name}
PARAMS = "params"
REPORT = "report"

# sdata
TABLE = "table"
CELL_CROPS = "cell_crops"  # shapes: the windows


def drawn_column(key: str) -> str:
    """The obs column that says which cells ``obsm[key]`` has images of; no such column: of all."""
    return f"{key}_drawn"


def source_column(key: str) -> str:
    """The obs column that names the cells which those in ``obsm[key]`` were drawn from."""
    return f"{key}_source"


def drawn(adata: AnnData, *keys: str) -> np.ndarray:
    """Mask of the cells that all of these slots of ``obsm`` have images of (an edit of some cells draws only these)."""
    mask = np.ones(adata.n_obs, dtype=bool)
    for column in map(drawn_column, keys):
        if column in adata.obs:
            mask &= adata.obs[column].to_numpy(dtype=bool)
    return mask


def half_layer(layer: str | None, half: str) -> str:
    """The layer with one half (``"own"``, ``"niche"``) of the expression in ``layer``, where it is written down."""
    return f"{layer}_{half}"


def entry(adata: AnnData, key: str) -> Mapping[str, Any]:
    """What ``uns[key]`` says, nothing if it is missing or no mapping: what a file holds there is data."""
    found = adata.uns.get(key)
    return found if isinstance(found, Mapping) else {}


def is_brightfield(adata: AnnData) -> bool:
    """Whether the images are red, green and blue of stained tissue in transmitted light (H&E): what is dense is dark."""
    return bool(entry(adata, CROPS).get(BRIGHTFIELD, False))


LONGEST = 200  # bytes of a name; file systems take 255, and names get endings


def _unstorable(name: str) -> str:
    """Why no file can store a slot of that name, in words; empty if files can."""
    return (
        "is empty" if not name.strip()
        else "is a folder's" if name in {".", ".."}
        else "holds a '/'" if "/" in name or "\\" in name
        else "holds a control character" if any(ord(c) < 32 or ord(c) == 127 for c in name)
        else "is no Unicode" if any(0xD800 <= ord(c) < 0xE000 for c in name)
        else f"has more than {LONGEST} bytes" if len(name.encode()) > LONGEST
        else ""
    )  # fmt: skip


def check_name(argument: str, name: str) -> str:
    """Return a name of a slot, column or model if files can store it.

    Raises
    ------
    TypeError
        It is no text.
    ValueError
        It is empty, too long, ``"."`` or ``".."``, or holds a slash or a control character: h5ad and zarr read a slash as a folder.
    """
    if not isinstance(name, str):
        msg = f"{argument}={name!r}: a name is a text, got {type(name).__name__}."
        raise TypeError(msg)
    wrong = _unstorable(name)
    if wrong:
        msg = f"{argument}={name[:60]!r} {wrong}: no file can store a slot of that name."
        raise ValueError(msg)
    return name


def column_name(name: str) -> str:
    """A channel's or group's name as part of a column's or slot's name: ``"CD298/B2M"`` -> ``"CD298-B2M"``.

    h5ad and zarr read a slash as a folder, and SpatialData writes letters, digits, ``_``, ``-`` and ``.`` alone; a long name is cut.
    """
    text = "".join(c if c.isalnum() or c in "_-." else "-" for c in str(name))
    while len(text.encode()) > LONGEST // 2:
        text = text[:-1]
    return "_" if text in {"", ".", ".."} else text


def write_slot(adata: AnnData, where: str, key: str, value: Any) -> None:
    """Write ``value`` to ``adata.<where>[key]`` and log it (debug level)."""
    getattr(adata, where)[check_name("key_added", key)] = value
    shape = getattr(value, "shape", None)
    logger.debug("wrote .%s[%r]%s", where, key, "" if shape is None else f" {tuple(shape)}")


def write_params(adata: AnnData, key: str, params: dict[str, Any], **extra: Any) -> None:
    """Record the parameters of a call in ``adata.uns[key]["params"]``, and more entries beside them.

    ``None`` is dropped from ``params`` (AnnData cannot store it); tuples become lists, paths become strings, tables' text is plain.
    """
    before = adata.uns.get(check_name("key_added", key), {})
    entry = dict(before) if hasattr(before, "items") else {}
    entry[PARAMS] = _storable(params)
    entry.update({name: _storable(value) for name, value in extra.items()})
    adata.uns[key] = entry
    logger.debug("wrote .uns[%r]", key)


def _storable(value: Any) -> Any:
    from pathlib import PurePath

    if hasattr(value, "iloc") and hasattr(value, "columns"):
        return plain_strings(value)
    if isinstance(value, dict):
        names = {k: column_name(k) if _unstorable(str(k)) else str(k) for k in value}
        return {names[k]: _storable(v) for k, v in value.items() if v is not None}
    if isinstance(value, (tuple, set, frozenset)):
        value = list(value)
    if isinstance(value, PurePath):
        return str(value)
    return value
