"""The simulated slides as CosMx exports."""

from __future__ import annotations

from ._write import write_cosmx

__all__ = ["write_cosmx"]
