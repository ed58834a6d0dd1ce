"""Trained models: saved, loaded, applied."""

from __future__ import annotations

__all__: list[str] = []
