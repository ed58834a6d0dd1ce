"""Distances, statistics and image quality on plain arrays."""

from __future__ import annotations

from ._nucleus_features import nucleus_features

__all__ = ["nucleus_features"]
