"""Vendor layouts to SpatialData, and the store of crops."""

from __future__ import annotations

from ._store import open_store, write_store
from ._store_reader import CropReader, crop_reader

__all__ = ["CropReader", "crop_reader", "open_store", "write_store"]
