"""CosMx exports to SpatialData."""

from __future__ import annotations

from ._read import load_cosmx

__all__ = ["load_cosmx"]
