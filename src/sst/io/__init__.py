"""Vendor layouts to SpatialData, and the store of crops."""

from __future__ import annotations

from ._slide_name import slide_name
from .store import CropReader, crop_reader, open_store, write_store

__all__ = ["CropReader", "crop_reader", "open_store", "write_store"]
