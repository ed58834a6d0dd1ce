"""Public data on demand, and a simulator of tissue."""

from __future__ import annotations

__all__: list[str] = []
