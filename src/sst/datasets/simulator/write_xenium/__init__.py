"""The simulated slides as Xenium bundles."""

from __future__ import annotations

from ._write import write_xenium

__all__ = ["write_xenium"]
