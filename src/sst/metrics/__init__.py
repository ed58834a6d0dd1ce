"""Distances, statistics and image quality on plain arrays."""

from __future__ import annotations

__all__: list[str] = []
