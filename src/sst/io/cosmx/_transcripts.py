"""Transcripts of a slide, streamed once and kept by field of view: in memory while small, else in parquet files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst._files import read_mark, write_json
from sst._settings import logger, settings

from ._layout import QUIRKS
from ._tables import csv_columns, open_csv

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import dask.dataframe as dd

    from sst.io._read_log import ReadLog

_IN_MEMORY = 20_000_000  # transcripts


@dataclass
class Transcripts:
    """Transcripts by FOV, with the vendor's local coordinates: x, y, gene, cell_id (0: in no cell), and what else is there.

    Attributes
    ----------
    parts
        FOV -> data frame, or path of a parquet file.
    counts
        FOV -> number of transcripts.
    genes
        Every target, in the order of the categories of ``gene``.
    global_sense
        For x and y: +1 or -1 as the vendor's global coordinate rises or falls with the local one; 0 if it has none.
    offsets
        FOV -> (x, y): global px minus sense times local px.
    """

    parts: dict[int, pd.DataFrame | Path]
    counts: dict[int, int]
    genes: list[str]
    global_sense: tuple[int, int] = (0, 0)
    offsets: dict[int, tuple[float, float]] = field(default_factory=dict)

    def frame(self, fov: int) -> pd.DataFrame:
        """One FOV's transcripts."""
        return self.load(self.parts[fov])

    def load(self, part: pd.DataFrame | Path) -> pd.DataFrame:
        """A part as a data frame."""
        return part if isinstance(part, pd.DataFrame) else _load(part, self.genes)

    def head(self) -> Transcripts:
        """All but the transcripts: what :meth:`load` needs of this, for a graph of tasks."""
        return Transcripts({}, {}, self.genes)

    def lazy(self, fov: int, flip: float | None, shift: tuple[float, float]) -> dd.DataFrame:
        """One FOV's transcripts in the pixels of its image: ``x + shift x``, ``(flip - y or y) + shift y``."""
        import dask.dataframe as dd

        part = self.parts[fov]
        if isinstance(part, pd.DataFrame):
            return dd.from_pandas(to_image(part, flip, shift), npartitions=1)
        meta = to_image(_load(part, self.genes).iloc[:0], flip, shift)
        return dd.from_map(_load_image, [part], genes=self.genes, flip=flip, shift=shift, meta=meta)


def to_image(frame: pd.DataFrame, flip: float | None, shift: tuple[float, float]) -> pd.DataFrame:
    """Local coordinates to the pixels of the image: pixel i covers [i, i+1)."""
    y = frame["y"] if flip is None else flip - frame["y"]
    return frame.assign(x=frame["x"] + shift[0], y=y + shift[1])


def _load(path: Path, genes: list[str]) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    frame["gene"] = pd.Categorical.from_codes(frame["gene"], categories=genes)
    return frame


def _load_image(path: Path, genes: list[str], flip: float | None, shift: tuple[float, float]) -> pd.DataFrame:
    return to_image(_load(path, genes), flip, shift)


def read_transcripts(path: Path, log: ReadLog, *, genes: list[str], cache: Path | None = None) -> Transcripts:
    """Stream a transcript file (``_tx_file.csv[.gz]``).

    Parameters
    ----------
    path
        The file.
    log
        Takes what was left.
    genes
        Targets in their order in the table; those that only the transcripts have come after.
    cache
        Folder for parquet files when there are more than 20 million transcripts; ``None`` takes one below
        ``sst.settings.data_dir``, named by the file's path, size and time, and used again on the next call.
    """
    names = csv_columns(path)
    found = {w: QUIRKS.column(w, names, file=path) for w in ("fov", "x", "y", "gene", "label")}
    optional = ("z", "compartment", "qv", "x_global", "y_global")
    found |= {w: c for w in optional if (c := QUIRKS.column(w, names, file=path, required=False))}
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    return partition(_csv_batches(path, found), log, genes=genes, key=key, cache=cache, file=path)


def _csv_batches(path: Path, found: dict[str, Any]) -> Iterator[pd.DataFrame]:
    import pyarrow as pa

    types = {found[w]: pa.float64() for w in ("x", "y", "z", "x_global", "y_global", "qv") if w in found}
    types |= {found[w]: pa.string() for w in ("gene", "compartment", "label") if w in found}
    for batch in open_csv(path, list(dict.fromkeys(found.values())), types):
        frame = batch.to_pandas()
        yield frame.rename(columns={column: what for what, column in found.items()})


def partition(
    batches: Iterable[pd.DataFrame], log: ReadLog, *, genes: list[str], key: str, cache: Path | None, file: object
) -> Transcripts:
    """Sort batches with columns fov, x, y, gene, label (and z, compartment, qv, x_global, y_global) into FOVs.

    Raises
    ------
    ValueError
        No transcript is left.
    """
    folder = (cache or settings.data_dir / "transcripts") / hashlib.sha256(key.encode()).hexdigest()[:16]
    kept = _reopen(folder, genes, log)
    if kept is not None:
        return kept
    codes = {gene: i for i, gene in enumerate(genes)}
    store = _Store(folder)
    bad = total = 0
    sense: list[np.ndarray] = []
    for batch in batches:
        total += len(batch)
        good = (
            np.isfinite(batch[["fov", "x", "y"]].to_numpy(dtype=float)).all(axis=1) & batch["gene"].notna().to_numpy()
        )
        bad += int((~good).sum())
        batch = batch if good.all() else batch.loc[good]
        for gene in pd.unique(batch["gene"].astype(str)):
            codes.setdefault(str(gene), len(codes))
        frame = pd.DataFrame(
            {
                "x": batch["x"].to_numpy(dtype=np.float64),
                "y": batch["y"].to_numpy(dtype=np.float64),
                "gene": batch["gene"].astype(str).map(codes).to_numpy(dtype=np.int32),
                "cell_id": _labels(batch["label"]),
            }
        )
        for what, name in (("z", "z_slice"), ("compartment", "compartment"), ("qv", "qv")):
            if what in batch:
                values = batch[what].to_numpy()
                frame[name] = values.astype(np.float32) if what != "compartment" else values.astype(str)
        fovs = batch["fov"].to_numpy().astype(np.int64)
        if "x_global" in batch and "y_global" in batch:
            sense.append(_sense(fovs, batch, store.offsets))
        store.add(fovs, frame)
    log.skip("transcripts", bad, "no FOV, no target or no coordinates")
    if not store.counts:
        msg = f"{file}: no transcript in it."
        raise ValueError(msg)
    names = list(codes)
    signs = np.sign(np.nansum(sense, axis=0)) if sense else np.zeros(2)
    offsets = {
        fov: (float(np.median(v[:, 0] - signs[0] * v[:, 2])), float(np.median(v[:, 1] - signs[1] * v[:, 3])))
        for fov, values in store.offsets.items()
        if len(v := np.concatenate(values)) and signs.all()
    }
    log.add("transcripts", "used", total - bad)
    out = Transcripts(store.close(names), store.counts, names, (int(signs[0]), int(signs[1])), offsets)
    if store.on_disk:
        _seal(folder, out, total - bad)
    return out


def _labels(column: pd.Series) -> np.ndarray:
    """Labels from numbers or names ``c_1_12_345``; nothing, or a negative number, is 0."""
    if not pd.api.types.is_numeric_dtype(column):
        text = column.astype("string")
        number = pd.to_numeric(text, errors="coerce")
        named = number.isna() & text.notna()
        if named.any():
            number = number.where(~named, pd.to_numeric(text.str.extract(r"_(\d+)$", expand=False), errors="coerce"))
        column = number
    values = column.fillna(0).to_numpy(dtype=np.float64)
    return np.maximum(values, 0).astype(np.int32)


def _sense(fovs: np.ndarray, batch: pd.DataFrame, offsets: dict[int, list[np.ndarray]], most: int = 500) -> np.ndarray:
    """Votes of this batch for the sense of x and y; a sample of each FOV's coordinates is kept for the offsets."""
    votes = np.zeros(2)
    columns = batch[["x_global", "y_global", "x", "y"]].to_numpy(dtype=np.float64)
    for fov in np.unique(fovs):
        if sum(map(len, offsets.get(int(fov), []))) >= most:
            continue
        rows = np.flatnonzero(fovs == fov)
        rows = rows[:: max(1, len(rows) // most)]
        sample = columns[rows]
        sample = sample[np.isfinite(sample).all(axis=1)]
        if len(sample) > 2:
            offsets.setdefault(int(fov), []).append(sample)
            centred = sample - sample.mean(axis=0)
            votes += np.sign((centred[:, :2] * centred[:, 2:]).sum(axis=0)) * len(sample)
    return votes


class _Store:
    """Rows by FOV; when there are many, everything moves to parquet files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[int, list[pd.DataFrame]] = {}
        self.counts: dict[int, int] = {}
        self.offsets: dict[int, list[np.ndarray]] = {}
        self.buffered = 0
        self.on_disk = False
        self.writers: dict[int, Any] = {}

    def add(self, fovs: np.ndarray, frame: pd.DataFrame) -> None:
        order = np.argsort(fovs, kind="stable")
        numbers, starts = np.unique(fovs[order], return_index=True)
        for number, rows in zip(numbers, np.split(order, starts[1:]), strict=True):
            fov = int(number)
            self.rows.setdefault(fov, []).append(frame.iloc[rows])
            self.counts[fov] = self.counts.get(fov, 0) + len(rows)
        self.buffered += len(frame)
        if self.buffered > (_IN_MEMORY // 4 if self.on_disk else _IN_MEMORY):
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.on_disk:
            self.folder.mkdir(parents=True, exist_ok=True)
            logger.info("more than %d transcripts: keeping them by FOV in %s", _IN_MEMORY, self.folder)
        self.on_disk = True
        for fov, parts in self.rows.items():
            table = pa.Table.from_pandas(pd.concat(parts, ignore_index=True), preserve_index=False)
            if fov not in self.writers:
                self.writers[fov] = pq.ParquetWriter(self.folder / f"{fov}.parquet", table.schema, compression="zstd")
            self.writers[fov].write_table(table)
        self.rows, self.buffered = {}, 0

    def close(self, genes: list[str]) -> dict[int, pd.DataFrame | Path]:
        if self.on_disk:
            self.flush()
            for writer in self.writers.values():
                writer.close()
            return {fov: self.folder / f"{fov}.parquet" for fov in self.counts}
        parts: dict[int, pd.DataFrame | Path] = {}
        for fov in sorted(self.rows):
            frame = pd.concat(self.rows.pop(fov), ignore_index=True)
            frame["gene"] = pd.Categorical.from_codes(frame["gene"], categories=genes)
            if "compartment" in frame:
                frame["compartment"] = frame["compartment"].astype("category")
            parts[fov] = frame
        return parts


def _seal(folder: Path, out: Transcripts, used: int) -> None:
    """Written last: a folder without it is not used again."""
    content = {
        "genes": out.genes,
        "counts": {str(k): v for k, v in out.counts.items()},
        "sense": list(out.global_sense),
        "offsets": {str(k): list(v) for k, v in out.offsets.items()},
        "used": used,
    }
    write_json(folder / "done.json", content)


def _reopen(folder: Path, genes: list[str], log: ReadLog) -> Transcripts | None:
    content = read_mark(folder / "done.json")
    if content is None or content["genes"][: len(genes)] != genes:
        return None
    counts = {int(k): int(v) for k, v in content["counts"].items()}
    if not all((folder / f"{fov}.parquet").exists() for fov in counts):
        return None
    logger.info("transcripts taken from %s", folder)
    log.add("transcripts", "used", content["used"], "kept from an earlier call")
    offsets = {int(k): (float(v[0]), float(v[1])) for k, v in content["offsets"].items()}
    sense = (int(content["sense"][0]), int(content["sense"][1]))
    return Transcripts({f: folder / f"{f}.parquet" for f in counts}, counts, content["genes"], sense, offsets)
