"""The tables of a CosMx export: cells, counts, positions of the fields of view."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from ._layout import QUIRKS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from sst.io._read_log import ReadLog

_BLOCK = 32 << 20  # bytes of text parsed at a time
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


def open_csv(
    path: Path, columns: list[str] | None = None, types: dict[str, pa.DataType] | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream a ``.csv`` or ``.csv.gz`` in batches.

    Raises
    ------
    ValueError
        The file is empty, cut off, or a row has another number of columns.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    try:
        with arrow.open_csv(
            path,
            read_options=arrow.ReadOptions(block_size=_BLOCK, use_threads=False),
            convert_options=arrow.ConvertOptions(include_columns=columns or [], column_types=types or {}),
        ) as reader:
            yield from reader
    except (pa.ArrowInvalid, EOFError, OSError) as error:
        msg = f"{path} cannot be read to its end; is it truncated? ({str(error).strip()[:300]})"
        raise ValueError(msg) from error


def csv_columns(path: Path) -> list[str]:
    """The header of a csv file."""
    try:
        names = [str(n) for n in pd.read_csv(path, nrows=1, header=None, dtype=str).iloc[0].fillna("")]
    except (pd.errors.EmptyDataError, EOFError, OSError, UnicodeDecodeError) as error:
        msg = f"{path} has no header: it is empty or truncated ({error})."
        raise ValueError(msg) from error
    return names


def read_csv(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A whole csv file, or some of its columns.

    Raises
    ------
    ValueError
        The file is empty, cannot be unpacked, or its last row has fewer columns than its header.
    """
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as handle:
            text = handle.read()
        table = pd.read_csv(io.StringIO(text), low_memory=False, usecols=columns)
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        EOFError,
        OSError,
        UnicodeDecodeError,
        zlib.error,
    ) as error:
        msg = f"{path} cannot be read to its end; is it truncated? ({error})"
        raise ValueError(msg) from error
    head, last = (
        next(csv.reader([line])) for line in (text[: text.find("\n")], text.rstrip("\r\n").rsplit("\n", 1)[-1])
    )
    if len(last) != len(head):
        msg = f"{path} is truncated: its header has {len(head)} columns, its last row {len(last)}."
        raise ValueError(msg)
    return table


def labels_of(column: pd.Series, *, file: object) -> np.ndarray:
    """Cell labels as integers, from numbers or from names such as ``c_1_12_345`` (the last part)."""
    if not pd.api.types.is_numeric_dtype(column):
        column = column.astype("string").str.extract(r"(\d+)$", expand=False)
        column = pd.to_numeric(column, errors="coerce")
    if column.isna().any():
        msg = f"{file}: column {column.name!r} has {int(column.isna().sum())} cells without a number."
        raise ValueError(msg)
    return column.to_numpy().astype(np.int64)


def read_metadata(path: Path, log: ReadLog) -> pd.DataFrame:
    """The cells' metadata under our names; repeated rows are dropped and counted.

    Raises
    ------
    ValueError
        A column is missing, or two rows of the same cell differ.
    """
    return tidy_metadata(read_csv(path), path, log)


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


def read_expression(path: Path, obs: pd.DataFrame, log: ReadLog) -> Cells:
    """Stream the expression matrix into CSR, in the order of ``obs``; cells in one of both only are counted and left.

    Raises
    ------
    ValueError
        A target is named twice, a count is no whole number >= 0, or a cell has two different rows.
    """
    import pyarrow as pa

    names = csv_columns(path)
    fov, label = (QUIRKS.column(w, names, file=path) for w in ("fov", "label"))
    extra = {"fov", "cell_id", "cellid", "cell"}
    targets = [n for n in names if n.lower() not in extra]
    if len(set(targets)) != len(targets):
        msg = f"{path}: targets named twice: {sorted({t for t in targets if targets.count(t) > 1})[:5]}."
        raise ValueError(msg)
    keys: list[pd.DataFrame] = []
    blocks = []
    for batch in open_csv(path, [str(fov), str(label), *targets], dict.fromkeys(targets, pa.float32())):
        rows = np.column_stack([batch.column(str(t)).to_numpy(zero_copy_only=False) for t in targets])
        if not np.isfinite(rows).all() or (rows < 0).any() or (rows != np.floor(rows)).any():
            msg = f"{path}: counts must be whole numbers >= 0; found others near row {sum(len(k) for k in keys) + 1}."
            raise ValueError(msg)
        blocks.append(sparse.csr_matrix(rows))
        frame = batch.select([str(fov), str(label)]).to_pandas()
        keys.append(pd.DataFrame({"fov": frame[fov].to_numpy(), "label": labels_of(frame[label], file=path)}))
    if not keys:
        msg = f"{path} has a header and no rows."
        raise ValueError(msg)
    key = pd.concat(keys, ignore_index=True)
    counts = sparse.csr_matrix(sparse.vstack(blocks, format="csr"))
    twice = key.duplicated()
    if twice.any():
        first_of = key.reset_index().groupby(["fov", "label"])["index"].transform("min").to_numpy()
        differ = abs(counts - counts[first_of]).sum(axis=1)
        if np.asarray(differ).any():
            row = key.iloc[int(np.flatnonzero(np.asarray(differ).ravel())[0])]
            msg = f"{path}: two rows that differ for FOV {row.fov}, cell {row.label}."
            raise ValueError(msg)
        log.skip("rows of the expression matrix", int(twice.sum()), "repeated")
        key, counts = key[~twice].reset_index(drop=True), counts[np.flatnonzero(~twice)]
    index = pd.MultiIndex.from_frame(key).get_indexer(pd.MultiIndex.from_frame(obs[["fov", "label"]]))
    log.skip("cells", int((index < 0).sum()), "in the metadata, not in the expression matrix")
    used = index >= 0
    outside = int((key["label"] == 0).sum())
    if outside:
        log.add("rows of the expression matrix", "left", outside, "cell 0: transcripts outside cells")
    log.skip("rows of the expression matrix", len(key) - int(used.sum()) - outside, "not in the metadata")
    if not used.any():
        msg = f"{path} and the metadata have no cell in common."
        raise ValueError(msg)
    return Cells(obs.loc[used].reset_index(drop=True), sparse.csr_matrix(counts[index[used]]), targets)


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
