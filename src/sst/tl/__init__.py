"""Train, edit, generate, measure."""

from __future__ import annotations

from ._edit import edit
from ._replay import replay

__all__ = ["edit", "replay"]
