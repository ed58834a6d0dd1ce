"""Tables of text, packed or not, whatever their name says: streamed or whole, with errors that name the file."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from typing import TYPE_CHECKING, Any

import pandas as pd

from sst._settings import logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

_BLOCK = 32 << 20  # bytes of text parsed at a time
_PEEK = 1 << 20  # bytes that tell the encoding
_BOMB = 500, 256 << 20  # a table of so many times its packed size, and of so many bytes, is no table


def is_packed(path: Path) -> bool:
    """Whether the file is gzipped, by its first bytes."""
    with path.open("rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
    if packed != (path.suffix.lower() == ".gz"):
        logger.warning("%s is %s, whatever its name says", path, "gzipped" if packed else "not gzipped")
    return packed


class _Counted(io.RawIOBase):
    """A file of text being unpacked; refuses what unpacks beyond measure."""

    def __init__(self, path: Path) -> None:
        self.path, self.packed = path, is_packed(path)
        self.size, self.seen = path.stat().st_size, 0
        self._file: Any = gzip.GzipFile(path) if self.packed else io.FileIO(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        self.seen += len(content)
        if self.packed and self.seen > _BOMB[1] and self.seen > _BOMB[0] * self.size:
            msg = f"{self.path} unpacks to more than {_BOMB[0]} times its {self.size} bytes: it is not read."
            raise ValueError(msg)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def encoding_of(path: Path) -> str:
    """``"utf8"``, or ``"latin1"`` where the beginning is no UTF-8."""
    try:
        with _Counted(path) as file:
            start = io.BufferedReader(file).read(_PEEK)
    except (EOFError, OSError, zlib.error):
        return "utf8"  # the reader itself says what is wrong
    try:
        start[: start.rfind(b"\n") + 1].decode("utf8")
    except UnicodeDecodeError as error:
        logger.warning("%s is not UTF-8 (byte %d): read as Latin-1", path, error.start)
        return "latin1"
    return "utf8"


def open_csv(
    path: Path, columns: list[str] | None = None, types: dict[str, pa.DataType] | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream a ``.csv`` or ``.csv.gz`` in batches.

    Raises
    ------
    ValueError
        The file is empty, cut off, not in one encoding, or a row has another number of columns.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    try:
        with (
            _Counted(path) as file,
            arrow.open_csv(
                pa.PythonFile(file, mode="r"),
                read_options=arrow.ReadOptions(block_size=_BLOCK, use_threads=False, encoding=encoding_of(path)),
                convert_options=arrow.ConvertOptions(include_columns=columns or [], column_types=types or {}),
            ) as reader,
        ):
            yield from reader
    except (pa.ArrowInvalid, pa.ArrowKeyError, EOFError, OSError, zlib.error) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> ValueError:
    """What is wrong with a table, as far as its reader's error says."""
    text = str(error).strip()[:300]
    if isinstance(error, UnicodeDecodeError) or "UTF8" in text:
        return ValueError(f"{path} is not UTF-8 throughout ({text}): save it as UTF-8.")
    if "conversion error" in text:
        return ValueError(f"{path} has a value that is no number where one is needed ({text}).")
    return ValueError(f"{path} cannot be read to its end; is it truncated? ({text})")


def csv_columns(path: Path) -> list[str]:
    """The header of a csv file."""
    try:
        with _Counted(path) as file, io.TextIOWrapper(io.BufferedReader(file), encoding=encoding_of(path)) as text:
            names = next(csv.reader(text), [])
    except (EOFError, OSError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        msg = f"{path} has no header: it is empty or truncated ({error})."
        raise ValueError(msg) from error
    if not names:
        msg = f"{path} has no header: it is empty or truncated."
        raise ValueError(msg)
    return [name.removeprefix("\ufeff") for name in names]


def read_head(path: Path, rows: int = 50) -> pd.DataFrame:
    """The first rows of a csv file."""
    try:
        with _Counted(path) as file, io.TextIOWrapper(io.BufferedReader(file), encoding=encoding_of(path)) as text:
            return pd.read_csv(text, nrows=rows)
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        EOFError,
        OSError,
        UnicodeDecodeError,
        zlib.error,
    ) as error:
        raise unreadable(path, error) from error


def read_csv(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A whole csv file, or some of its columns.

    Raises
    ------
    ValueError
        The file is empty, cannot be unpacked, or its last row has fewer columns than its header.
    """
    try:
        with _Counted(path) as file, io.TextIOWrapper(io.BufferedReader(file), encoding=encoding_of(path)) as handle:
            text = handle.read().removeprefix("\ufeff")
        table = pd.read_csv(io.StringIO(text), low_memory=False, usecols=columns)
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        EOFError,
        OSError,
        UnicodeDecodeError,
        zlib.error,
    ) as error:
        raise unreadable(path, error) from error
    head, last = (
        next(csv.reader([line]), []) for line in (text[: text.find("\n")], text.rstrip("\r\n").rsplit("\n", 1)[-1])
    )
    if len(last) != len(head):
        msg = f"{path} is truncated: its header has {len(head)} columns, its last row {len(last)}."
        raise ValueError(msg)
    table.attrs["cut"] = not text.endswith("\n")
    return table
