"""Draw what is in the slots."""

from __future__ import annotations

from ._distances import distances
from ._expression_shift import expression_shift
from ._gallery import gallery
from ._gene_marker import gene_marker
from ._morphology import morphology
from ._training import training
from ._transition import transition

__all__ = ["distances", "expression_shift", "gallery", "gene_marker", "morphology", "training", "transition"]
