"""Tables of the public liver release: a TileDB-SOMA group of the format before 1.0, read with plain ``tiledb``.

Below the root: ``RNA/obs`` (index ``obs_id`` such as ``c_1_12_345``), ``RNA/var``, ``RNA/X/counts`` (dimensions ``obs_id``,
``var_id``, attribute ``value``) and ``RNA/obsm/transcriptCoords`` (one row a transcript). ``tiledbsoma`` refuses this version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sst._validate import describe_options

from ._layout import QUIRKS
from ._tables import Cells, tidy_metadata
from ._transcripts import Transcripts, partition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sst.io._read_log import ReadLog

_BUFFER = 64 << 20  # bytes a column and batch
_ROWS = 2_000_000  # rows of a dense array read at a time


def _tiledb() -> Any:
    try:
        import tiledb
    except ImportError as error:
        msg = "reading a TileDB group needs the package 'tiledb': pip install 'sst-editing[tiledb]'."
        raise ImportError(msg) from error
    return tiledb


def find_rna(root: Path) -> Path:
    """The folder ``RNA`` of the group: ``root`` itself, below it, or up to three levels down.

    Raises
    ------
    FileNotFoundError
        None has ``obs``, ``var`` and ``X/counts``.
    """
    for folder in [root, root / "RNA", *sorted(root.glob("*/RNA")), *sorted(root.glob("*/*/RNA"))]:
        if all((folder / part).is_dir() for part in ("obs", "var", "X/counts")):
            return folder
    there = sorted(p.name for p in root.iterdir())[:20] if root.is_dir() else []
    msg = f"{root}: no RNA group with obs, var and X/counts. There: {', '.join(there) or 'nothing'}."
    raise FileNotFoundError(msg)


def read_soma_cells(root: Path, log: ReadLog, *, slide: int | None) -> tuple[Cells, int | None]:
    """Cells of one slide, and its number.

    Raises
    ------
    ImportError
        ``tiledb`` is not installed.
    ValueError
        The group has several slides and ``slide`` is ``None``; ids are there twice; a count is no whole number >= 0.
    KeyError
        ``slide`` is not one of the group's.
    """
    _tiledb()
    rna = find_rna(root)
    table = _frame(rna / "obs")
    if "obs_id" not in table:
        msg = f"{rna / 'obs'}: no obs_id; it has {list(table.columns)}."
        raise ValueError(msg)
    column = QUIRKS.column("slide", list(table.columns), file=rna / "obs", required=False)
    if column is None:
        number = table["obs_id"].str.extract(r"^c_(\d+)_", expand=False)
        slides = pd.to_numeric(number, errors="coerce") if number.notna().all() else pd.Series(0, index=table.index)
    else:
        slides = pd.to_numeric(table[column], errors="coerce")
    slide = _choose(slides, slide, rna)
    here = (slides == slide).to_numpy()
    log.add("cells", "left", int((~here).sum()), "other slides of the group")
    table = table.loc[here].reset_index(drop=True)
    if table["obs_id"].duplicated().any():
        msg = f"{rna / 'obs'}: {table.loc[table['obs_id'].duplicated(), 'obs_id'].iloc[0]!r} is there twice."
        raise ValueError(msg)
    if "cell" in table:
        table = table.drop(columns="cell")
    obs = tidy_metadata(table.rename(columns={"obs_id": "cell"}), rna / "obs", log)
    targets = [str(t) for t in _frame(rna / "var", columns=[])["var_id"]]
    return Cells(obs, _counts(rna / "X" / "counts", obs["cell_id"].to_numpy(), targets, log), targets), slide


def _choose(slides: pd.Series, slide: int | None, rna: Path) -> int:
    there = sorted({int(s) for s in slides.dropna().unique()})
    if slide is None:
        if len(there) != 1:
            msg = f"{rna} has the slides {there}; choose with slide=."
            raise ValueError(msg)
        return there[0]
    if slide not in there:
        msg = f"slide={slide!r} is not in {rna}. {describe_options(there, slide)}"
        raise KeyError(msg)
    return slide


def _counts(path: Path, cells: np.ndarray, targets: list[str], log: ReadLog) -> sparse.csr_matrix:
    rows_of, columns_of = pd.Index(cells), pd.Index(targets)
    blocks = []
    strange = 0
    for frame in _batches(path, ["obs_id", "var_id", "value"]):
        rows, columns = rows_of.get_indexer(frame["obs_id"]), columns_of.get_indexer(frame["var_id"])
        values = frame["value"].to_numpy(dtype=np.float32)
        strange += int((columns < 0).sum())
        good = (rows >= 0) & (columns >= 0)
        if (values[good] < 0).any() or (values[good] != np.floor(values[good])).any():
            msg = f"{path}: counts must be whole numbers >= 0."
            raise ValueError(msg)
        blocks.append((values[good], rows[good].astype(np.int32), columns[good].astype(np.int32)))
    log.skip("counts", strange, "their target is not in RNA/var")
    if not blocks or not sum(len(b[0]) for b in blocks):
        msg = f"{path}: no count of the cells in RNA/obs."
        raise ValueError(msg)
    values, rows, columns = (np.concatenate([b[i] for b in blocks]) for i in range(3))
    shape = (len(cells), len(targets))
    out = sparse.csr_matrix((values, (rows, columns)), shape=shape)
    if out.nnz != len(values):
        msg = f"{path}: {len(values) - out.nnz} counts are there twice."
        raise ValueError(msg)
    return out


def read_soma_transcripts(
    root: Path, log: ReadLog, *, slide: int | None, genes: list[str], cache: Path | None
) -> Transcripts:
    """Stream ``RNA/obsm/transcriptCoords`` of one slide.

    Raises
    ------
    FileNotFoundError
        The array is not there.
    ValueError
        A column is missing, or no transcript is on the slide.
    """
    path = find_rna(root) / "obsm" / "transcriptCoords"
    if not path.is_dir():
        msg = f"{path} is not there: transcripts are needed for counts in windows."
        raise FileNotFoundError(msg)
    names = _columns(path)
    found = {w: QUIRKS.column(w, names, file=path) for w in ("fov", "x", "y", "gene", "label")}
    optional = ("z", "compartment", "qv", "slide")
    found |= {w: c for w in optional if (c := QUIRKS.column(w, names, file=path, required=False))}

    def batches() -> Iterator[pd.DataFrame]:
        for frame in _batches(path, list(dict.fromkeys(str(c) for c in found.values()))):
            part = frame.rename(columns={column: what for what, column in found.items()})
            if "slide" in part:
                part = part.loc[pd.to_numeric(part["slide"], errors="coerce") == slide]
            if len(part):
                yield part

    stamp = max((p.stat().st_mtime_ns for p in path.rglob("*")), default=0)
    return partition(batches(), log, genes=genes, key=f"{path.resolve()}|{slide}|{stamp}", cache=cache, file=path)


def _columns(path: Path) -> list[str]:
    with _open(path) as array:
        schema = array.schema
        dims = [schema.domain.dim(i).name for i in range(schema.domain.ndim)]
        return [*dims, *(schema.attr(i).name for i in range(schema.nattr))]


def _open(path: Path) -> Any:
    tiledb = _tiledb()
    context = tiledb.Ctx({"py.init_buffer_bytes": str(_BUFFER)})
    try:
        return tiledb.open(str(path.resolve()), ctx=context)  # it follows no links
    except tiledb.TileDBError as error:
        msg = f"{path} cannot be opened as a TileDB array; is the download whole? ({error})"
        raise ValueError(msg) from error


def _batches(path: Path, columns: list[str]) -> Iterator[pd.DataFrame]:
    """Rows of an array as data frames, its dimensions as columns, some at a time."""
    tiledb = _tiledb()
    with _open(path) as array:
        schema = array.schema
        dims = [schema.domain.dim(i).name for i in range(schema.domain.ndim)]
        attrs = [schema.attr(i).name for i in range(schema.nattr)]
        missing = [c for c in columns if c not in dims + attrs]
        if missing:
            msg = f"{path}: no {', '.join(missing)}; it has {dims + attrs}."
            raise ValueError(msg)
        chosen = [a for a in attrs if a in columns]
        try:
            if schema.sparse:
                query = array.query(
                    attrs=chosen, dims=[d for d in dims if d in columns] or dims[:1], return_incomplete=True
                )
                for arrays in query.multi_index[(slice(None),) * len(dims)]:
                    yield _frame_of(arrays)
            else:
                low, high = (int(n) for n in array.nonempty_domain()[0])
                for start in range(low, high + 1, _ROWS):
                    stop = min(start + _ROWS, high + 1)
                    arrays = dict(array.query(attrs=chosen)[start:stop])
                    yield _frame_of({dims[0]: np.arange(start, stop), **arrays})
        except tiledb.TileDBError as error:
            msg = f"{path} cannot be read to its end; is the download whole? ({error})"
            raise ValueError(msg) from error


def _frame(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    names = _columns(path)
    wanted = names if columns is None else [names[0], *columns]
    frames = list(_batches(path, wanted))
    if not frames or not sum(map(len, frames)):
        msg = f"{path} has no rows."
        raise ValueError(msg)
    return pd.concat(frames, ignore_index=True)


def _frame_of(arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Arrays as columns, bytes as strings; no pandas conversion of TileDB's own, which not every pandas suits."""
    columns = {}
    for name, values in arrays.items():
        column = pd.Series(np.asarray(values))
        if isinstance(values, np.ma.MaskedArray):
            column = column.mask(np.ma.getmaskarray(values))
        if values.dtype.kind == "S" or (values.dtype == object and len(values) and isinstance(values[0], bytes)):
            column = column.str.decode("utf-8")
        columns[name] = column
    return pd.DataFrame(columns)
