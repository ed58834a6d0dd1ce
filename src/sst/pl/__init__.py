"""Draw what is in the slots."""

from __future__ import annotations

from ._confound_report import confound_report
from ._crops_qc import crops_qc
from ._distances import distances
from ._dose_response import dose_response
from ._edit_controls import edit_controls
from ._evaluation import evaluation
from ._expression_shift import expression_shift
from ._gallery import gallery
from ._gene_marker import gene_marker
from ._morphology import morphology
from ._rank_genes_effect import rank_genes_effect
from ._region import region
from ._training import training
from ._transition import transition

__all__ = [
    "confound_report",
    "crops_qc",
    "distances",
    "dose_response",
    "edit_controls",
    "evaluation",
    "expression_shift",
    "gallery",
    "gene_marker",
    "morphology",
    "rank_genes_effect",
    "region",
    "training",
    "transition",
]
