"""Draw what is in the slots."""

from __future__ import annotations

from ._transition import transition

__all__ = ["transition"]
