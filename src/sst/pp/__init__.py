"""Read slides, cut paired cells, prepare them."""

from __future__ import annotations

__all__: list[str] = []
