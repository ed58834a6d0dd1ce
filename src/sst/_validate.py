"""Checks of users' input: each names the value that is wrong and what was possible."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ._keys import REPORT, SEGMENTED
from ._query import QueryError, query_mask
from ._settings import logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

T = TypeVar("T")


def describe_options(options: Iterable[object], value: object = None, most: int = 12) -> str:
    """A sentence that lists what was possible, and what ``value`` may have meant."""
    names = [str(o) for o in options]
    plain = {name.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(str(value).casefold(), plain, n=3) if value is not None else []
    shown = ", ".join(repr(n) for n in names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
    hint = f" Did you mean {', '.join(repr(plain[c]) for c in close)}?" if close else ""
    return f"Possible: {shown or 'none'}.{hint}"


def check_choice(name: str, value: T, options: Sequence[T]) -> T:
    """Return ``value`` if it is one of ``options``, else raise ``ValueError``."""
    if not isinstance(value, Hashable) or value not in options:
        msg = f"{name}={value!r} is not known. {describe_options(options, value)}"
        raise ValueError(msg)
    return value


def check_range(
    name: str, value: float, *, low: float | None = None, high: float | None = None, open_low: bool = False
) -> float:
    """Return ``value`` if ``low <= value <= high`` (``low < value`` with ``open_low``), else raise ``ValueError``."""
    if not isinstance(value, Real) or isinstance(value, bool):
        msg = f"{name}={value!r}: expected a number, got {type(value).__name__}."
        raise TypeError(msg)
    too_low = low is not None and (value <= low if open_low else value < low)
    if too_low or (high is not None and value > high) or not np.isfinite(value):
        bounds = f"{'(' if open_low else '['}{'-inf' if low is None else low}, {'inf' if high is None else high}]"
        msg = f"{name}={value!r} lies outside {bounds}."
        raise ValueError(msg)
    return value


def check_key(adata: AnnData, where: str, key: str, *, name: str = "key") -> Any:
    """Return ``adata.<where>[key]``; raise ``KeyError`` that lists what is there."""
    mapping = getattr(adata, where)
    if not isinstance(key, Hashable):
        msg = f"{name}={key!r}: expected a name, got {type(key).__name__}."
        raise TypeError(msg)
    if key not in mapping:
        keys = mapping.columns if hasattr(mapping, "columns") else mapping.keys()
        msg = f"{name}={key!r} is not in adata.{where}. {describe_options(keys, key)}"
        raise KeyError(msg)
    return mapping[key]


def check_entry(adata: AnnData, key: str, *parts: str, by: str) -> Any:
    """Return ``adata.uns[key]`` with the parts that the function ``by`` writes.

    Raises
    ------
    KeyError
        It is not there, or not that function's.
    """
    entry = check_key(adata, "uns", key)
    for part in parts:
        if not hasattr(entry, "items") or part not in entry:
            msg = f"uns[{key!r}] has no {part!r}: run {by}(adata, key_added={key!r}) first."
            raise KeyError(msg)
    return entry


def get_counts(adata: AnnData, layer: str | None = None, *, name: str = "layer") -> Any:
    """The counts to work on, ``X`` or a layer: a matrix of numbers of at least one cell.

    Normalised or logged values are the classic mistake, and a silent one. ``X`` that holds fractions is refused if a layer beside it
    holds whole numbers; else, and for a layer that was named, it is said. What an edit wrote holds fractions by right.

    Raises
    ------
    KeyError
        There is no such layer.
    TypeError
        It holds no numbers.
    ValueError
        It is empty, or no counts while a layer has them.
    """
    X = adata.X if layer is None else check_key(adata, "layers", layer, name=name)
    what = "X" if layer is None else f"layers[{layer!r}]"
    if X is None:
        msg = f"X is empty: the counts are in a layer? Say which with {name}=. {describe_options([k for k in adata.layers if k is not None])}"
        raise ValueError(msg)
    if not np.issubdtype(np.dtype(getattr(X, "dtype", object)), np.number) and np.dtype(X.dtype) != bool:
        msg = f"{what} holds values of type {X.dtype}: numbers are needed."
        raise TypeError(msg)
    if np.issubdtype(X.dtype, np.complexfloating):
        msg = f"{what} holds complex numbers: counts are needed."
        raise TypeError(msg)
    if 0 in adata.shape:
        msg = f"the object has {adata.n_obs} cells and {adata.n_vars} genes: at least one of each is needed."
        raise ValueError(msg)
    if is_edit(adata, layer) or holds_whole_numbers(X):
        return X
    layers = [k for k in adata.layers if k is not None]  # anndata 0.13 lists X there
    others = [k for k in layers if k != layer and not is_edit(adata, k)]
    with_counts = [k for k in others if holds_whole_numbers(adata.layers[k])]
    with_counts.sort(key=lambda k: k == SEGMENTED)  # of the segmented cell, not of the window
    raw = getattr(adata, "raw", None)
    hint = f"pass {name}={with_counts[0]!r}" if with_counts else "keep the counts in a layer and name it"
    if not with_counts and raw is not None and raw.shape == adata.shape and holds_whole_numbers(raw.X):
        hint = f"adata.raw holds counts: copy them to adata.layers['counts'] and pass {name}='counts'"
    text = f"{what} holds fractions: normalised or logged values, where counts are meant; {hint}."
    if layer is None and with_counts:
        msg = f"{text} (To work on these values all the same, copy X to a layer and name that.)"
        raise ValueError(msg)
    logger.warning("%s", text)
    return X


def is_edit(adata: AnnData, layer: str | None) -> bool:
    """Whether a layer is what an edit wrote."""
    entry = adata.uns.get(str(layer).removesuffix("_shown"))
    return layer is not None and hasattr(entry, "get") and REPORT in entry


def holds_whole_numbers(X: Any, most: int = 256) -> bool:
    """Whether the first and the last so many rows of a matrix are whole numbers."""
    if np.issubdtype(X.dtype, np.integer) or X.dtype == bool:
        return True
    for block in (X[:most], X[-most:] if X.shape[0] > most else X[:0]):
        block = block.compute() if hasattr(block, "compute") else block
        values = np.asarray(block.data if hasattr(block, "indptr") else block, dtype=np.float64)
        values = values[np.isfinite(values)]
        if (values != np.rint(values)).any():
            return False
    return True


def check_members(members: Any, *, name: str) -> list[str]:
    """A name, or several, as a list; ``TypeError`` for anything else."""
    if not isinstance(members, Iterable) or isinstance(members, bytes):
        msg = f"{name}={members!r}: expected a name, or several, got {type(members).__name__}."
        raise TypeError(msg)
    names = [members] if isinstance(members, str) else list(members)
    if not all(isinstance(one, str) for one in names):
        msg = f"{name}: expected names, but it holds {next(g for g in names if not isinstance(g, str))!r}."
        raise TypeError(msg)
    return names


def check_genes(var_names: Sequence[str], genes: str | Iterable[str], *, name: str = "genes") -> list[str]:
    """Return ``genes`` as a list without repeats; raise ``KeyError`` that names the unknown ones."""
    wanted = list(dict.fromkeys(check_members(genes, name=name)))
    if not wanted:
        msg = f"{name} is empty: name at least one gene, or None for all."
        raise ValueError(msg)
    known = set(var_names)
    unknown = [g for g in wanted if g not in known]
    if unknown:
        msg = f"{name}: {unknown} not among the object's {len(known)} genes. {describe_options(var_names, unknown[0])}"
        raise KeyError(msg)
    return wanted


def check_groups(adata: AnnData, groupby: str, groups: Iterable[str] | None = None) -> list[str]:
    """Return the categories of ``adata.obs[groupby]`` (or ``groups``, checked), in the order of the categories."""
    column = check_key(adata, "obs", groupby, name="groupby")
    if column.isna().any():
        msg = f"obs[{groupby!r}] has {int(column.isna().sum())} missing values; drop or name those cells first."
        raise ValueError(msg)
    categories = [
        str(c)
        for c in (
            column.cat.remove_unused_categories().cat.categories if hasattr(column, "cat") else sorted(column.unique())
        )
    ]
    if groups is None:
        return categories
    wanted = [str(g) for g in groups]
    for group in wanted:
        if group not in categories:
            msg = f"group {group!r} is not in obs[{groupby!r}]. {describe_options(categories, group)}"
            raise KeyError(msg)
    return wanted


def resolve_table(data: AnnData | SpatialData, table_key: str = "table") -> AnnData:
    """Return the AnnData itself, or the table of a SpatialData (``KeyError`` if it has none of that name)."""
    from anndata import AnnData

    if isinstance(data, AnnData):
        return data
    if not hasattr(data, "tables"):
        msg = f"expected an AnnData or a SpatialData, got {type(data).__name__}."
        raise TypeError(msg)
    if table_key not in data.tables:
        msg = f"table_key={table_key!r} is not a table of this SpatialData. {describe_options(data.tables.keys(), table_key)}"
        raise KeyError(msg)
    return data.tables[table_key]


def resolve_subset(
    adata: AnnData,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None,
    *,
    name: str = "subset",
) -> np.ndarray:
    """A boolean mask over cells from a mask, an ``obs`` query string, or ``{obs key: [categories]}``.

    Raises
    ------
    ValueError
        The mask has another length or type, the query fails, or no cell is chosen.
    KeyError
        An obs key or a category is not there.
    """
    n = adata.n_obs
    if subset is None:
        return np.ones(n, dtype=bool)
    if isinstance(subset, str):
        try:
            mask = query_mask(adata.obs, subset)
        except QueryError as error:
            msg = (
                f"{name}={subset!r} is not a query that obs can answer ({error}). {describe_options(adata.obs.columns)}"
            )
            raise ValueError(msg) from None
    elif hasattr(subset, "items"):
        mask = np.ones(n, dtype=bool)
        for key, categories in subset.items():
            column = check_key(adata, "obs", key, name=f"{name} key").astype(str)
            if not isinstance(categories, Iterable):
                msg = f"{name}: obs[{key!r}] is to be one of {categories!r}, which is no list."
                raise TypeError(msg)
            wanted = [categories] if isinstance(categories, str) else [str(c) for c in categories]
            for category in wanted:
                if category not in set(column):
                    msg = f"{name}: {category!r} is not in obs[{key!r}]. {describe_options(sorted(column.unique()), category)}"
                    raise KeyError(msg)
            mask &= column.isin(wanted).to_numpy()
    else:
        mask = np.asarray(subset)
        if mask.dtype != bool or mask.shape != (n,):
            msg = f"{name}: expected {n} booleans, got shape {mask.shape} of {mask.dtype}."
            raise ValueError(msg)
    if not mask.any():
        msg = f"{name}={subset!r} chooses no cell."
        raise ValueError(msg)
    return mask
