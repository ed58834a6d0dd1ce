"""Arguments of public functions, checked before any work: type and range by their annotation and name."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ._keys import CROPS, check_name

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "repeats": (1, 10_000),
    "steps": (2, 10_000),
    "n_resamples": (1, 1_000_000),
    "n_random": (0, 1000),
    "n_shuffles": (0, 1000),
    "n_sets": (0, 10_000),
    "n_samples": (1, 10_000),
    "n_steps": (1, 10_000),
    "n_folds": (2, 1000),
    "n_subsets": (1, 10_000),
    "n_candidates": (1, 1_000_000),
    "refine": (0, 1000),
    "refine_steps": (0, 100_000),
    "batch_size": (1, 1 << 24),
    "n_jobs": (-1024, 1024),
    "ncols": (1, 100),
    "n_genes": (1, 100_000),
    "devices": (0, 1024),  # 0: as many as the launcher started
    "cell_inches": (0.1, 50),
}
"""Bounds of what can be asked for: beyond them the work would never end."""
NAMES = {"key", "key_added", "name", "reference"}  # of slots and models, which files must be able to store
ENDLESS = {"max_seconds"}  # may be infinite


LABELS = {"clusters", "labels", "groups"}  # arrays of anything
MATRICES = {"X", "counts"}  # dense, sparse, backed or lazy


def checked(function: F) -> F:
    """Check the arguments of a public function by its signature.

    What is annotated as ``int``, ``float``, ``bool``, ``str``, ``Path``, ``np.ndarray``, a sequence of texts or of numbers, or a
    function, must be that: whole numbers and numbers within :data:`RANGES`, finite, names that a file can store, arrays of numbers. An
    ``AnnData`` has at least one cell. The errors name the argument.
    """
    signature = inspect.signature(function)
    annotations = {
        name: re.sub(r"(os\.)?PathLike\[str\]", "Path", str(p.annotation).replace("'", ""))
        for name, p in signature.parameters.items()
    }

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _check(name, value, annotations[name])
        return function(*bound.args, **bound.kwargs)

    return call  # type: ignore[return-value]


def _check(name: str, value: Any, annotation: str) -> Any:
    kinds = set(re.sub(r"\[.*?\](?=$| \|)", "[]", annotation).split(" | "))
    plain = kinds - {"None"}
    if name in MATRICES and plain == {"Any"}:
        return _matrix(name, value)
    if value is None:
        if kinds & {"None", "Any", "Features", "Subset"}:
            return None
        msg = f"{name}=None: expected {annotation}."
        raise TypeError(msg)
    if plain <= {"AnnData", "SpatialData"}:
        return _object(name, value, plain)
    if plain <= {"int", "float"}:
        return _number(name, value, whole=plain == {"int"})
    if plain <= {"bool"} and not isinstance(value, bool | np.bool_):
        raise _unexpected(name, value, "True or False")
    if plain == {"str", "int"} and (isinstance(value, bool) or not isinstance(value, str | numbers.Integral)):
        raise _unexpected(name, value, "a name or a whole number")
    if plain <= {"str", "Literal[]"}:
        if not isinstance(value, str):
            raise _unexpected(name, value, "a text")
        return check_name(name, value) if name in NAMES else value
    if plain <= {"str", "Path"} and not isinstance(value, str | os.PathLike):
        raise _unexpected(name, value, "a path")
    if plain <= {"Callable[]"} and not callable(value):
        raise _unexpected(name, value, "a function")
    if plain <= {"np.ndarray", "Moments"} and name not in LABELS:
        if "Moments" in plain and type(value).__name__ == "Moments":
            return value
        return _array(name, value)
    if plain <= {"str", "Path", "Sequence[]", "Iterable[]", "list[]", "Mapping[]"}:
        return _several(name, value, annotation)
    return value


def _several(name: str, value: Any, annotation: str) -> Any:
    """A text, a path, a mapping or a list, as far as the annotation has them; members of lists are texts or numbers."""
    if isinstance(value, str):
        if annotation.startswith("str") or "| str" in annotation:
            return value
        raise _unexpected(name, value, "a list")
    if isinstance(value, PurePath) and "Path" in annotation or isinstance(value, Mapping) and "Mapping" in annotation:
        return value
    if "Mapping" in annotation and not re.search(r"Sequence|Iterable|list\[", annotation):
        raise _unexpected(name, value, "a mapping")
    if isinstance(value, Mapping | bytes) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) != 1:
        raise _unexpected(name, value, "a list")
    members = list(value)
    member: Any = str if re.search(r"(Sequence|Iterable|list)\[str\]", annotation) else None
    member = numbers.Real if re.search(r"(Sequence|list)\[(float|int)\]", annotation) else member
    for one in members:
        if member is not None and not isinstance(one, member):
            what = "texts" if member is str else "numbers"
            msg = f"{name}: expected a list of {what}, but it holds {_short(one)} ({type(one).__name__})."
            raise TypeError(msg)
    return members


def _unexpected(name: str, value: Any, wanted: str) -> TypeError:
    return TypeError(f"{name}={_short(value)}: expected {wanted}, got {type(value).__name__}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def _object(name: str, value: Any, kinds: set[str]) -> Any:
    from anndata import AnnData

    if isinstance(value, AnnData):
        if 0 in value.shape:
            msg = f"{name} has {value.n_obs} cells and {value.n_vars} genes: at least one of each is needed."
            raise ValueError(msg)
        if not value.var_names.is_unique:
            twice = value.var_names[value.var_names.duplicated()][0]
            msg = (
                f"{name}: the gene {twice!r} is there twice: name genes apart, as {name}.var_names_make_unique() does."
            )
            raise ValueError(msg)
        _crops(value)
        return value
    if "SpatialData" not in kinds or not hasattr(value, "tables"):
        msg = f"{name}: expected {'an AnnData or a SpatialData' if 'SpatialData' in kinds else 'an AnnData'}, got {type(value).__name__}."
        raise TypeError(msg)
    return value


def _crops(adata: Any) -> None:
    """What an object says of its crops must be what :func:`sst.pp.crop_cells` says."""
    about = adata.uns.get(CROPS, {})
    where = f"uns[{CROPS!r}]"
    if not isinstance(about, Mapping):
        msg = f"{where} is {_short(about)}: expected what sst.pp.crop_cells writes."
        raise TypeError(msg)
    channels = about.get("channels", ())
    if isinstance(channels, str | bytes) or not isinstance(channels, Iterable):
        msg = f"{where}['channels'] is {_short(channels)}: expected the names of the channels."
        raise TypeError(msg)
    for part in ("pixel_size", "size", "output_size"):
        value = about.get(part, 0)
        if not isinstance(value, numbers.Real) or not math.isfinite(value) or value < 0:
            msg = f"{where}[{part!r}] is {_short(value)}: expected a number >= 0."
            raise ValueError(msg)
    if not isinstance(about.get("limits", {}), Mapping):
        msg = f"{where}['limits'] is {_short(about['limits'])}: expected what sst.pp.rescale_intensity writes."
        raise TypeError(msg)


def _number(name: str, value: Any, *, whole: bool) -> float:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        raise _unexpected(name, value, f"a {'whole ' if whole else ''}number")
    number: Any = value
    if not math.isfinite(number) and not (name in ENDLESS and number > 0):
        msg = f"{name}={number!r}: expected a finite number."
        raise ValueError(msg)
    if whole and float(number) % 1:
        msg = f"{name}={number!r}: expected a whole number."
        raise ValueError(msg)
    low, high = RANGES.get(name, (-math.inf, math.inf))
    if not low <= number <= high:
        msg = f"{name}={number!r} lies outside [{low}, {high}]."
        raise ValueError(msg)
    return int(number) if whole else number


def _array(name: str, value: Any) -> Any:
    if hasattr(value, "dask") or hasattr(value, "indptr"):
        return value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        msg = f"{name}: expected an array of numbers, got {type(value).__name__} ({error})."
        raise TypeError(msg) from None
    if array.dtype.kind not in "biuf":
        msg = f"{name}: expected an array of numbers, got {type(value).__name__} of {array.dtype}."
        raise TypeError(msg)
    return array


def _matrix(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = _array(name, value)
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2:
        msg = f"{name}: expected a matrix, cells x genes, got {type(value).__name__}{'' if shape is None else f' of shape {shape}'}."
        raise TypeError(msg)
    if hasattr(value, "dtype") and np.dtype(value.dtype).kind not in "biuf":
        msg = f"{name}: expected a matrix of numbers, got {value.dtype}."
        raise TypeError(msg)
    return value
