"""Draw what is in the slots."""

from __future__ import annotations

__all__: list[str] = []
