"""Text as AnnData can write it, whatever pandas makes of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def plain_strings(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table, with text as Python objects: index, columns' names, columns, and categories.

    pandas 3 (and ``pd.options.future.infer_string``) has a type for text that AnnData does not write unless asked to.
    """
    import pandas as pd

    out = frame.copy(deep=False)
    for name in out.columns:
        column = out[name]
        if isinstance(column.dtype, pd.StringDtype):
            out[name] = column.astype(object)
        elif isinstance(column.dtype, pd.CategoricalDtype) and isinstance(column.cat.categories.dtype, pd.StringDtype):
            categories = pd.Index(column.cat.categories.astype(object), dtype=object)
            out[name] = pd.Categorical.from_codes(
                column.cat.codes, dtype=pd.CategoricalDtype(categories, ordered=column.cat.ordered)
            )
    for axis in ("index", "columns"):
        labels = getattr(out, axis)
        if isinstance(labels.dtype, pd.StringDtype):
            setattr(out, axis, pd.Index(labels.astype(object), dtype=object, name=labels.name))
    return out
