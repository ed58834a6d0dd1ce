"""Zarr v3 arrays whose bytes on disk are plain C order, so that they can be memory-mapped as well as read as zarr.

Two forms, both without compression: one chunk that is the whole array (``raw``), and one shard of many small chunks
(``sharded``: chunks one after the other, then the shard's index). In either, the file ``c/0/...`` begins with the array's
bytes; zarr reads the second in pieces.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
_CHUNK_BYTES = 4 << 20


def chunk_file(folder: Path, ndim: int) -> Path:
    """The one file that holds the bytes of an array written here."""
    return folder / "/".join(["c", *["0"] * ndim])


def write_metadata(
    folder: Path, shape: tuple[int, ...], dtype: np.dtype, *, inner: int | None = None, attributes: dict | None = None
) -> None:
    """Write ``zarr.json`` of an array: one chunk, or (``inner`` rows a chunk) one shard."""
    dtype = np.dtype(dtype)
    endian: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    plain = endian if dtype.itemsize > 1 else {"name": "bytes"}
    rows = shape[0] if inner is None else math.ceil(shape[0] / inner) * inner
    codec: dict[str, Any] = plain
    if inner is not None:
        codec = {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [inner, *shape[1:]],
                "codecs": [plain],
                "index_codecs": [endian],
                "index_location": "end",
            },
        }
    meta = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [max(rows, 1), *(max(s, 1) for s in shape[1:])]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if dtype.kind != "b" else False,
        "codecs": [codec],
        "attributes": _ARRAY if attributes is None else attributes,
        "storage_transformers": [],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps(meta, indent=1))


def inner_rows(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Rows in a shard's chunk of about 4 MB."""
    return max(1, min(shape[0], _CHUNK_BYTES // max(1, math.prod(shape[1:]) * np.dtype(dtype).itemsize)))


def close_shard(file: Path, shape: tuple[int, ...], dtype: np.dtype, inner: int) -> None:
    """Pad the file to whole chunks and append the shard's index (offset and length of each chunk)."""
    chunk = inner * math.prod(shape[1:]) * np.dtype(dtype).itemsize
    count = math.ceil(shape[0] / inner)
    index = np.empty((count, 2), "<u8")
    index[:, 0] = np.arange(count, dtype=np.uint64) * np.uint64(chunk)
    index[:, 1] = chunk
    with file.open("r+b") as handle:
        handle.truncate(count * chunk)
        handle.seek(count * chunk)
        handle.write(index.tobytes())


def mapped(folder: Path) -> np.ndarray | None:
    """Memory map (copy on write) of an array written here; ``None`` if its bytes are laid out another way."""
    meta = json.loads((folder / "zarr.json").read_text())
    shape = tuple(meta["shape"])
    rows = meta["chunk_grid"]["configuration"]["chunk_shape"][0] if shape else 0
    codecs = meta["codecs"]
    if meta.get("node_type") != "array" or not shape or len(codecs) != 1 or rows < shape[0]:
        return None
    if codecs[0]["name"] == "sharding_indexed":
        inside = codecs[0]["configuration"]["codecs"]
        if [c["name"] for c in inside] != ["bytes"] or not meta["attributes"].get("sst-mappable"):
            return None
    elif codecs[0]["name"] != "bytes":
        return None
    dtype = np.dtype(meta["data_type"])
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    return np.memmap(chunk_file(folder, len(shape)), dtype=dtype, mode="c", shape=shape)


@dataclass
class RawWriter:
    """Append rows to an array in the layout of this module; ``close`` makes it a zarr array."""

    folder: Path
    dtype: np.dtype
    ndim: int = 1
    length: int = 0
    keep: int = 0  # bytes of an earlier writer to go on behind; ``length`` is their number of rows

    def __post_init__(self) -> None:
        self.file = chunk_file(self.folder, self.ndim)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self.file.open("r+b" if self.keep else "wb")
        self._handle.truncate(self.keep)
        self._handle.seek(self.keep)

    def append(self, rows: np.ndarray) -> None:
        """Write ``rows`` after those written before."""
        np.ascontiguousarray(rows, dtype=self.dtype).tofile(self._handle)
        self.length += len(rows)

    def abandon(self) -> None:
        """Close the file as it is (harmless after :meth:`close`)."""
        self._handle.close()

    def close(self, tail: tuple[int, ...] = (), *, shard: bool = False) -> None:
        """Finish: metadata (and the shard's index) for an array of ``length`` rows of shape ``tail``."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        shape = (self.length, *tail)
        if shard and self.length:
            inner = inner_rows(shape, self.dtype)
            close_shard(self.file, shape, self.dtype, inner)
            write_metadata(self.folder, shape, self.dtype, inner=inner, attributes={**_ARRAY, "sst-mappable": True})
        else:
            if not self.length:
                self.file.unlink()
            write_metadata(self.folder, shape, self.dtype)
