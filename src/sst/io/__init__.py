"""Vendor layouts to SpatialData, and the store of crops."""

from __future__ import annotations

__all__: list[str] = []
