"""Tables written piece by piece, and fast."""

from __future__ import annotations

import gzip
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import pandas as pd
    import pyarrow as pa


class CsvStream:
    """A ``.csv`` (or ``.csv.gz``) that grows by tables of the same columns; text is not quoted."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._stack = ExitStack()
        raw = self._stack.enter_context(path.open("wb"))
        packed = path.suffix == ".gz"
        self._file: Any = (
            self._stack.enter_context(gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0)) if packed else raw
        )
        self._names: list[str] = []

    def __enter__(self) -> CsvStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, table: pa.Table | pd.DataFrame) -> None:
        """Add the rows of a table."""
        import pyarrow as pa
        from pyarrow import csv

        if not isinstance(table, pa.Table):
            table = pa.Table.from_pandas(table, preserve_index=False)
        if not self._names:
            self._names = table.column_names
            self._file.write((",".join(self._names) + "\n").encode())
        if table.column_names != self._names:
            msg = f"{self.path}: columns {table.column_names} after {self._names}."
            raise ValueError(msg)
        # Dictionaries are not known to the csv writer.
        for i, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type):
                table = table.set_column(i, field.name, table.column(i).cast(pa.string()))
        sink = pa.BufferOutputStream()
        csv.write_csv(table, sink, csv.WriteOptions(include_header=False, quoting_style="none"))
        self._file.write(memoryview(sink.getvalue()))
