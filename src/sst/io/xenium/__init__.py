"""Xenium bundles to SpatialData."""

from __future__ import annotations

from ._read import load_xenium

__all__ = ["load_xenium"]
