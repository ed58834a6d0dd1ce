"""The tables of a CosMx export: cells, counts, positions of the fields of view."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sst._validate import describe_options

from ._csv import csv_columns, open_csv, read_csv, read_head
from ._layout import QUIRKS

if TYPE_CHECKING:
    from pathlib import Path

    from sst.io._read_log import ReadLog

_MOST = 1 << 24  # counts above are not exact in float32; none is real
_RESERVED = {
    "cell_id",
    "x_px",
    "y_px",
    "x_fov_px",
    "y_fov_px",
    "region",
    "negative_probe_counts",
    "system_control_counts",
}


@dataclass
class Cells:
    """The cells of a slide.

    Attributes
    ----------
    obs
        ``fov`` (int), ``label`` (int, the value in the FOV's label picture), ``x``, ``y`` (local, as the vendor has
        them), ``x_global``, ``y_global`` (px) where known, and every other column of the metadata.
    counts
        n x targets, CSR, float32 holding integers.
    targets
        Names of the columns of ``counts``, controls too.
    """

    obs: pd.DataFrame
    counts: sparse.csr_matrix
    targets: list[str]


def labels_of(column: pd.Series, *, file: object) -> np.ndarray:
    """Cell labels as integers, from numbers or from names such as ``c_1_12_345`` (the last part)."""
    if not pd.api.types.is_numeric_dtype(column):
        column = column.astype("string").str.extract(r"(\d+)$", expand=False)
        column = pd.to_numeric(column, errors="coerce")
    if column.isna().any():
        msg = f"{file}: column {column.name!r} has {int(column.isna().sum())} cells without a number."
        raise ValueError(msg)
    return column.to_numpy().astype(np.int64)


def read_metadata(path: Path, log: ReadLog, *, slide: int | None = None) -> pd.DataFrame:
    """The cells' metadata under our names, of one slide; repeated rows are dropped and counted.

    Raises
    ------
    ValueError
        A column is missing, two rows of the same cell differ, or there are several slides and ``slide`` is ``None``.
    KeyError
        ``slide`` is not there.
    """
    table = read_csv(path)
    cut = table.attrs.get("cut", False)
    of = slides_of(table)
    if of is not None:
        there = sorted({int(n) for n in of.dropna().unique()})
        if slide is None and len(there) > 1:
            msg = f"{path} has cells of the slides {there} (column {of.name!r}): choose with slide=."
            raise ValueError(msg)
        if slide is not None and slide not in there:
            msg = f"slide={slide!r} is not in {path}. {describe_options(there, slide)}"
            raise KeyError(msg)
        if slide is not None:
            log.add("cells", "left", int((of != slide).sum()), "other slides of the table")
            table = table[of == slide]
    obs = tidy_metadata(table, path, log)
    obs.attrs["cut"] = cut
    return obs


def slides_of(table: pd.DataFrame) -> pd.Series | None:
    """The slide of every row: a column of numbers, or the second part of names ``c_1_12_345``; ``None`` if nothing says it."""
    names = list(table.columns)
    column = QUIRKS.column("slide", names, file="", required=False)
    if column is not None:
        number = pd.to_numeric(table[column], errors="coerce")
        if number.notna().any():
            return number
    for column in QUIRKS.columns["name"]:
        if column in names and not pd.api.types.is_numeric_dtype(table[column]):
            number = table[column].astype("string").str.extract(r"^c_(\d+)_\d+_\d+$", expand=False)
            if number.notna().all() and len(number):
                return pd.to_numeric(number).rename(column)
    return None


def tidy_metadata(table: pd.DataFrame, file: object, log: ReadLog) -> pd.DataFrame:
    """The metadata of ``file`` under our names (see :func:`read_metadata`)."""
    names = list(table.columns)
    found = {what: QUIRKS.column(what, names, file=file) for what in ("fov", "label", "x", "y")}
    found |= {w: QUIRKS.column(w, names, file=file, required=False) for w in ("x_global", "y_global", "x_mm", "y_mm")}
    obs = pd.DataFrame(
        {what: pd.to_numeric(table[name], errors="coerce") for what, name in found.items() if name and what != "label"}
    )
    obs["label"] = labels_of(table[found["label"]], file=file)
    bad = obs[["fov", "x", "y"]].isna().any(axis=1)
    log.skip("cells", int(bad.sum()), "no FOV or no centre in the metadata")
    text = QUIRKS.column("name", names, file=file, required=False)
    if text and not pd.api.types.is_numeric_dtype(table[text]):
        obs["cell_id"] = table[text].astype(str)
    rest = table.drop(columns=[c for c in {found["fov"], found["label"], text if "cell_id" in obs else None} if c])
    taken = {c.lower() for c in obs.columns} | _RESERVED
    for name in rest.columns:
        clean = _clean(name)
        while clean.lower() in taken:
            clean += "_vendor"
        taken.add(clean.lower())
        obs[clean] = rest[name]
    obs = obs.loc[~bad].copy()
    obs["fov"] = obs["fov"].astype(np.int64)
    before = len(obs)
    obs = obs.drop_duplicates()
    log.skip("rows of the metadata", before - len(obs), "repeated")
    twice = obs.duplicated(["fov", "label"])
    if twice.any():
        first = obs.loc[twice].iloc[0]
        msg = f"{file}: {int(twice.sum())} cells have two rows that differ, the first is FOV {first.fov}, cell {first.label}."
        raise ValueError(msg)
    return obs.reset_index(drop=True)


def _clean(name: str) -> str:
    """A column name that AnnData and SpatialData can store."""
    clean = re.sub(r"[^0-9A-Za-z_.\-]+", "_", str(name)).strip()
    return clean.lstrip("_") or "column"


def read_expression(path: Path, obs: pd.DataFrame, log: ReadLog, *, slide: int | None = None) -> Cells:
    """Stream the expression matrix into CSR, in the order of ``obs``; cells in one of both only are counted and left.

    Raises
    ------
    ValueError
        A target is named twice, a count is no whole number >= 0, or a cell has two different rows; the metadata end in the middle of
        a line and lack cells.
    """
    key, counts, targets = _stream_expression(path, log, slide)
    twice = key.duplicated()
    if twice.any():
        first_of = key.reset_index().groupby(["fov", "label"])["index"].transform("min").to_numpy()
        differ = abs(counts - counts[first_of]).sum(axis=1)
        if np.asarray(differ).any():
            row = key.iloc[int(np.flatnonzero(np.asarray(differ).ravel())[0])]
            msg = (
                f"{path}: two rows that differ for FOV {row.fov}, cell {row.label}. Are there several slides (slide=)?"
            )
            raise ValueError(msg)
        log.skip("rows of the expression matrix", int(twice.sum()), "repeated")
        key, counts = key[~twice].reset_index(drop=True), counts[np.flatnonzero(~twice)]
    index = pd.MultiIndex.from_frame(key).get_indexer(pd.MultiIndex.from_frame(obs[["fov", "label"]]))
    log.skip("cells", int((index < 0).sum()), "in the metadata, not in the expression matrix")
    used = index >= 0
    outside = int((key["label"] == 0).sum())
    if outside:
        log.add("rows of the expression matrix", "left", outside, "cell 0: transcripts outside cells")
    lost = len(key) - int(used.sum()) - outside
    if lost and obs.attrs.get("cut"):
        msg = f"the metadata of {path.name} lack {lost} of {len(key) - outside} cells, and end in the middle of a line: they are truncated."
        raise ValueError(msg)
    log.skip("rows of the expression matrix", lost, "not in the metadata")
    if not used.any():
        msg = f"{path} and the metadata have no cell in common."
        raise ValueError(msg)
    return Cells(obs.loc[used].reset_index(drop=True), sparse.csr_matrix(counts[index[used]]), targets)


def _stream_expression(
    path: Path, log: ReadLog, slide: int | None
) -> tuple[pd.DataFrame, sparse.csr_matrix, list[str]]:
    """Keys (fov, label), counts and targets of all rows (of a slide)."""
    import pyarrow as pa

    names = csv_columns(path)
    fov, label = (str(QUIRKS.column(w, names, file=path)) for w in ("fov", "label"))
    targets, more = _targets(path, names, log)
    keys: list[pd.DataFrame] = []
    blocks = []
    types = dict.fromkeys(targets, pa.float64())
    for batch in open_csv(path, list(dict.fromkeys([fov, label, *more, *targets])), types):
        frame = batch.select(list(dict.fromkeys([fov, label, *more]))).to_pandas()
        rows = np.column_stack([batch.column(t).to_numpy(zero_copy_only=False) for t in targets])
        of = None if slide is None else slides_of(frame)
        if of is not None:
            frame, rows = frame[(of == slide).to_numpy()], rows[(of == slide).to_numpy()]
        _check_counts(path, rows, targets, sum(len(k) for k in keys))
        blocks.append(sparse.csr_matrix(rows.astype(np.float32)))
        keys.append(
            pd.DataFrame({"fov": frame[fov].to_numpy(), "label": labels_of(frame[label], file=path)}).astype(np.int64)
        )
    if not keys:
        msg = f"{path} has a header and no rows."
        raise ValueError(msg)
    return pd.concat(keys, ignore_index=True), sparse.csr_matrix(sparse.vstack(blocks, format="csr")), targets


def _targets(path: Path, names: list[str], log: ReadLog) -> tuple[list[str], list[str]]:
    """Columns that are targets; and those beside them that may tell the slide. Columns that are neither are said."""
    known = {n.lower() for what in ("fov", "label", "name", "slide") for n in QUIRKS.columns[what]}
    more = [n for n in names if n.lower() in known]
    rest = [n for n in names if n.lower() not in known]
    odd = [n for n in rest if not n.strip() or n.lower().startswith("unnamed:")]  # row names
    rest = [n for n in rest if n not in odd]
    if len(set(rest)) != len(rest):
        msg = f"{path}: targets named twice: {sorted({t for t in rest if rest.count(t) > 1})[:5]}."
        raise ValueError(msg)
    head = read_head(path)
    words = [n for n in rest if n in head and not pd.api.types.is_numeric_dtype(head[n]) and head[n].notna().any()]
    if {"target", "count"} <= {w.lower() for w in rest} or not set(rest) - set(words):
        msg = f"{path} is no matrix of cells x targets: it has the columns {names[:8]}. A long table has to be turned first."
        raise ValueError(msg)
    log.skip("columns of the expression matrix", len(odd) + len(words), f"no targets: {[*odd, *words][:5]}")
    return [n for n in rest if n not in words], more


def _check_counts(path: Path, rows: np.ndarray, targets: list[str], before: int) -> None:
    bad = ~np.isfinite(rows) | (rows < 0) | (rows != np.floor(rows)) | (rows > _MOST)
    if bad.any():
        row, column = (int(v[0]) for v in np.nonzero(bad))
        msg = (
            f"{path}: counts must be whole numbers from 0 to {_MOST}; row {before + row + 1} has {rows[row, column]!r} of "
            f"{targets[column]!r} ({int(bad.sum())} such values near it). Missing values and intensities (proteins) are no counts."
        )
        raise ValueError(msg)


def split_controls(cells: Cells) -> tuple[sparse.csr_matrix, list[str], pd.DataFrame]:
    """Counts of genes, their names, and the controls' sums as columns for ``obs``."""
    negative, system = _is_control(cells.targets)
    genes = ~(negative | system)
    sums = {
        "negative_probe_counts": np.asarray(cells.counts[:, negative].sum(axis=1)).ravel().astype(np.int32),
        "system_control_counts": np.asarray(cells.counts[:, system].sum(axis=1)).ravel().astype(np.int32),
    }
    counts = cells.counts[:, np.flatnonzero(genes)]
    counts.eliminate_zeros()
    counts.sort_indices()
    return counts, [t for t, g in zip(cells.targets, genes, strict=True) if g], pd.DataFrame(sums)


def genes_first(targets: list[str]) -> list[str]:
    """The same targets, genes before controls."""
    control = np.logical_or(*_is_control(targets))
    return [t for t, c in zip(targets, control, strict=True) if not c] + [
        t for t, c in zip(targets, control, strict=True) if c
    ]


def _is_control(targets: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which targets are negative probes, and which system controls."""
    return tuple(
        np.array([bool(re.match(p, t, re.I)) for t in targets], dtype=bool) for p in (QUIRKS.negative, QUIRKS.system)
    )  # type: ignore[return-value]
