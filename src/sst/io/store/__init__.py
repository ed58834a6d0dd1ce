"""The store of crops on disk."""

from __future__ import annotations

from ._layout import chunk_file, close_shard, inner_rows, write_metadata
from ._pictures import Slot, among, draw_in_memory, draw_to_store, store_behind
from ._reader import ArrayReader, CropReader, RowwiseReader, crop_reader, known_reader, register
from ._store import (
    PROGRESS,
    check_target,
    open_store,
    partial_folder,
    run_of,
    write_csr,
    write_group,
    write_layer,
    write_rest,
    write_store,
)

__all__ = [
    "ArrayReader",
    "CropReader",
    "PROGRESS",
    "RowwiseReader",
    "Slot",
    "among",
    "check_target",
    "chunk_file",
    "close_shard",
    "crop_reader",
    "draw_in_memory",
    "draw_to_store",
    "inner_rows",
    "known_reader",
    "open_store",
    "partial_folder",
    "register",
    "run_of",
    "store_behind",
    "write_csr",
    "write_group",
    "write_layer",
    "write_metadata",
    "write_rest",
    "write_store",
]
