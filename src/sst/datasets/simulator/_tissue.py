"""A simulated tissue that keeps the causes of everything it shows."""

from __future__ import annotations

from dataclasses import dataclass

from ._adata import to_adata
from ._effect import true_effect, true_effects
from ._slides import Slides
from .write_cosmx import write_cosmx
from .write_xenium import write_xenium


@dataclass(frozen=True, eq=False, repr=False)
class Tissue(Slides):
    """Slides of simulated tissue, and the truth about them.

    Images, labels and transcripts are drawn when they are asked for, from ``causes``, ``latent`` and the seed alone: the same
    tissue always shows the same, in any order and in any process.

    Attributes
    ----------
    config
        The settings.
    genes
        One gene a row: see :func:`simulate_tissue`.
    causes
        One cell a row, slide by slide: see :func:`simulate_tissue`.
    latent
        n x p: log expression of each cell before depth, ambient and counting noise.
    edits
        What was done to the tissue by :meth:`counterfactual`, oldest first.
    """

    true_effect = true_effect
    true_effects = true_effects
    to_adata = to_adata
    write_cosmx = write_cosmx
    write_xenium = write_xenium
