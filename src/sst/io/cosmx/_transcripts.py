"""Transcripts of a slide, streamed once and kept by field of view: in memory while small, else in parquet files."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst._files import locked, read_mark, sync_folder, write_json
from sst._settings import logger, settings

from ._csv import csv_columns, open_csv
from ._layout import QUIRKS
from ._tables import slides_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import dask.dataframe as dd

    from sst.io._read_log import ReadLog

_IN_MEMORY = 20_000_000  # transcripts
_REPEATED = 0.01  # share of repeated rows above which they are no chance
_MARK = "done.json"


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


def read_transcripts(
    path: Path, log: ReadLog, *, genes: list[str], cache: Path | None = None, slide: int | None = None
) -> Transcripts:
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
    slide
        Only this slide's, where the file says it.
    """
    names = csv_columns(path)
    found = {w: QUIRKS.column(w, names, file=path) for w in ("fov", "x", "y", "gene", "label")}
    optional = ("z", "compartment", "qv", "x_global", "y_global")
    found |= {w: c for w in optional if (c := QUIRKS.column(w, names, file=path, required=False))}
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}" + ("" if slide is None else f"|{slide}")
    return partition(_csv_batches(path, found, slide), log, genes=genes, key=key, cache=cache, file=path)


def _csv_batches(path: Path, found: dict[str, Any], slide: int | None) -> Iterator[pd.DataFrame]:
    import pyarrow as pa

    types = {found[w]: pa.float64() for w in ("x", "y", "z", "x_global", "y_global", "qv") if w in found}
    types |= {found[w]: pa.string() for w in ("gene", "compartment", "label") if w in found}
    known = {n for what in ("slide", "name") for n in QUIRKS.columns[what]}
    more = [] if slide is None else [n for n in csv_columns(path) if n in known]
    for batch in open_csv(path, list(dict.fromkeys([*found.values(), *more])), types):
        frame = batch.to_pandas()
        of = None if slide is None else slides_of(frame)
        if of is not None:
            frame = frame[(of == slide).to_numpy()]
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
    bad = total = 0
    sense: list[np.ndarray] = []
    with ExitStack() as stack:
        store = _Store(folder, stack)
        for batch in batches:
            total += len(batch)
            known = np.isfinite(batch[["fov", "x", "y"]].to_numpy(dtype=float)).all(axis=1)
            good = known & batch["gene"].notna().to_numpy()
            bad += int((~good).sum())
            batch = batch if good.all() else batch.loc[good]
            for gene in pd.unique(batch["gene"].astype(str)):
                codes.setdefault(str(gene), len(codes))
            fovs = batch["fov"].to_numpy().astype(np.int64)
            if "x_global" in batch and "y_global" in batch:
                sense.append(_sense(fovs, batch, store.offsets))
            store.add(fovs, _our_columns(batch, codes))
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
        parts, repeated = store.close(names)
        log.skip("transcripts", repeated, "the same row was there before")
        used = total - bad - repeated
        log.add("transcripts", "used", used)
        out = Transcripts(parts, store.counts, names, (int(signs[0]), int(signs[1])), offsets)
        if store.on_disk:
            _seal(folder, out, used)
    return out


def _our_columns(batch: pd.DataFrame, codes: dict[str, int]) -> pd.DataFrame:
    """Columns under our names, genes as their codes."""
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
    return frame


def drop_repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """Without rows that were there before, if they are more than chance would have it (1 %): a table that was joined to itself."""
    if len(frame) < 2:
        return frame
    mixed = np.zeros(len(frame), np.uint64)
    for name, factor in (("x", 0x9E3779B97F4A7C15), ("y", 0xC2B2AE3D27D4EB4F), ("gene", 0x165667B19E3779F9)):
        column = frame[name].cat.codes if hasattr(frame[name], "cat") else frame[name]
        mixed = (mixed ^ column.to_numpy(np.float64).view(np.uint64)) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    if len(np.unique(mixed)) > (1 - _REPEATED) * len(frame):
        return frame
    columns = list(frame.columns)
    again = frame.groupby(columns, observed=True, dropna=False, sort=False).cumcount()
    times = frame.groupby(columns, observed=True, dropna=False, sort=False)["x"].transform("size")
    if (again > 0).mean() < _REPEATED:
        return frame
    keep = again < times // 2 if (times % 2 == 0).all() else again == 0  # all twice: what chance repeated, twice, stays
    return frame[keep].reset_index(drop=True)


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
    """Rows by FOV; when there are many, everything moves to parquet files in ``folder``, locked meanwhile."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.rows: dict[int, list[pd.DataFrame]] = {}
        self.counts: dict[int, int] = {}
        self.offsets: dict[int, list[np.ndarray]] = {}
        self.buffered = 0
        self.on_disk = False
        self.pieces: dict[int, list[Path]] = {}

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
        if not self.on_disk:
            self.stack.enter_context(locked(self.folder))
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _MARK).unlink(missing_ok=True)
            logger.info("more than %d transcripts: keeping them by FOV in %s", _IN_MEMORY, self.folder)
        self.on_disk = True
        for fov, parts in self.rows.items():  # no file stays open: there may be more FOVs than files that may be
            pieces = self.pieces.setdefault(fov, [])
            pieces.append(self.folder / f"{fov}-{len(pieces)}.parquet")
            pd.concat(parts, ignore_index=True).to_parquet(pieces[-1], index=False, compression="zstd")
        self.rows, self.buffered = {}, 0

    def close(self, genes: list[str]) -> tuple[dict[int, pd.DataFrame | Path], int]:
        """The parts, and how many rows were repeated."""
        before = sum(self.counts.values())
        parts: dict[int, pd.DataFrame | Path] = {}
        if self.on_disk:
            self.flush()
            for fov, pieces in self.pieces.items():
                frame = drop_repeats(pd.concat([pd.read_parquet(piece) for piece in pieces], ignore_index=True))
                parts[fov] = target = self.folder / f"{fov}.parquet"
                frame.to_parquet(target, index=False, compression="zstd")
                self.counts[fov] = len(frame)
                for piece in pieces:
                    piece.unlink()
            return parts, before - sum(self.counts.values())
        for fov in sorted(self.rows):
            frame = drop_repeats(pd.concat(self.rows.pop(fov), ignore_index=True))
            frame["gene"] = pd.Categorical.from_codes(frame["gene"], categories=genes)
            if "compartment" in frame:
                frame["compartment"] = frame["compartment"].astype("category")
            self.counts[fov] = len(frame)
            parts[fov] = frame
        return parts, before - sum(self.counts.values())


def _seal(folder: Path, out: Transcripts, used: int) -> None:
    """Written last: a folder without it is not used again."""
    content = {
        "genes": out.genes,
        "counts": {str(k): v for k, v in out.counts.items()},
        "sense": list(out.global_sense),
        "offsets": {str(k): list(v) for k, v in out.offsets.items()},
        "used": used,
    }
    sync_folder(folder)
    write_json(folder / _MARK, content)


def _reopen(folder: Path, genes: list[str], log: ReadLog) -> Transcripts | None:
    content = read_mark(folder / _MARK)
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
