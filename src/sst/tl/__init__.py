"""Train, edit, generate, measure."""

from __future__ import annotations

from ._distances import distances
from ._edit import edit
from ._morphology import morphology
from ._replay import replay

__all__ = ["distances", "edit", "morphology", "replay"]
