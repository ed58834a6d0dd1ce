"""Draw what is in the slots."""

from __future__ import annotations

from ._expression_shift import expression_shift
from ._training import training
from ._transition import transition

__all__ = ["expression_shift", "training", "transition"]
