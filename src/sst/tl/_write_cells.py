"""Paired cells as a table of the SpatialData that they were cut from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import _keys
from sst._arguments import checked
from sst._settings import logger
from sst._strings import plain_strings
from sst._validate import describe_options, resolve_subset, resolve_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_REGION, _INSTANCE = "region", "window"


@checked
def write_cells(
    sdata: SpatialData,
    adata: AnnData,
    *,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    windows: bool = False,
    table_key: str = _keys.TABLE,
    key_added: str = "cells",
) -> None:
    """Store paired cells, with their edits, as a table that annotates the slide they were cut from.

    Then whatever works on a SpatialData (spatialdata-plot, napari-spatialdata, :func:`spatialdata.match_table_to_element`) colours the
    cells by ``obs``, by genes, and by ``layers["edited"]``.

    Parameters
    ----------
    sdata
        One slide.
    adata
        Its paired cells (of several slides: choose this one's with ``subset``).
    subset
        Cells that are stored: a mask, an ``obs`` query, or ``{obs key: [categories]}``.
    windows
        Annotate the cells' windows, ``shapes["cell_crops"]``, instead of the elements that the slide's own table annotates (labels, or
        boundaries).
    table_key
        The slide's own table.
    key_added
        Name of the new table; one of that name is replaced.

    Returns
    -------
    ``None``; writes ``sdata.tables[key_added]``, a copy of the cells chosen.

    Raises
    ------
    KeyError
        There are no windows, the slide's table annotates nothing, or the cells lack the columns by which it does.
    ValueError
        Cells of several slides are chosen, or none is in this one.

    Examples
    --------
    >>> sst.tl.write_cells(slide, adata, subset={"condition": ["tumor"]})
    >>> slide.pl.render_labels("labels", color="B2M", table_name="cells", table_layer="edited").pl.show()
    """
    from spatialdata.models import TableModel

    rows = np.flatnonzero(resolve_subset(adata, subset))
    if _keys.SAMPLE in adata.obs and (slides := adata.obs[_keys.SAMPLE].iloc[rows].astype(str).unique()).size > 1:
        msg = f"cells of several slides {sorted(slides)} are chosen, but this is one: choose its cells with subset=..."
        raise ValueError(msg)
    region, instance = _windows(sdata, adata) if windows else _segments(sdata, adata, table_key)
    here = rows[region.iloc[rows].notna().to_numpy()]
    if not len(here):
        msg = f"none of the {len(rows)} cells chosen is in this slide."
        raise ValueError(msg)
    if len(here) < len(rows):
        logger.info(
            "%d of %d cells chosen have nothing to annotate here and are left out", len(rows) - len(here), len(rows)
        )
    cells = adata[here].copy()
    cells.uns.pop(TableModel.ATTRS_KEY, None)
    name, key = str(region.name), str(instance.name)
    cells.obs[name] = pd.Categorical(region.iloc[here].astype(object))
    cells.obs[key] = instance.iloc[here].to_numpy()
    cells.obs, cells.var = plain_strings(cells.obs), plain_strings(cells.var)
    table = TableModel.parse(cells, region=list(cells.obs[name].cat.categories), region_key=name, instance_key=key)
    sdata.tables.pop(key_added, None)
    sdata.tables[_keys.check_name("key_added", key_added)] = table


def _segments(sdata: SpatialData, adata: AnnData, table_key: str) -> tuple[pd.Series, pd.Series]:
    """Each cell's element (NaN: not in this slide) and its number or name there, as the slide's own table has them."""
    from spatialdata.models import TableModel

    attrs: Any = resolve_table(sdata, table_key).uns.get(TableModel.ATTRS_KEY, {})
    if not attrs.get(TableModel.REGION_KEY_KEY):
        msg = f"tables[{table_key!r}] annotates nothing: pass windows=True to annotate shapes['cell_crops'] instead."
        raise KeyError(msg)
    name, key = attrs[TableModel.REGION_KEY_KEY], attrs[TableModel.INSTANCE_KEY]
    for column in (name, key):
        if column not in adata.obs:
            msg = f"the cells have no obs[{column!r}], by which the slide's table annotates. {describe_options(adata.obs.columns, column)}"
            raise KeyError(msg)
    region = adata.obs[name].astype(object)
    return region.where(region.isin(list(sdata.labels) + list(sdata.shapes))), adata.obs[key]


def _windows(sdata: SpatialData, adata: AnnData) -> tuple[pd.Series, pd.Series]:
    """The same for the cells' windows."""
    if _keys.CELL_CROPS not in sdata.shapes:
        msg = f"the slide has no shapes[{_keys.CELL_CROPS!r}]: sst.pp.crop_cells puts the windows there."
        raise KeyError(msg)
    squares = sdata.shapes[_keys.CELL_CROPS]
    columns = [_keys.FOV, "cell_id"]
    names = pd.Series(squares.index, index=pd.MultiIndex.from_frame(squares[columns].astype(str)))
    window = names.reindex(pd.MultiIndex.from_frame(adata.obs[columns].astype(str))).to_numpy()
    region = [None if lost else _keys.CELL_CROPS for lost in pd.isna(window)]
    return pd.Series(region, dtype=object, name=_REGION), pd.Series(window, name=_INSTANCE)
