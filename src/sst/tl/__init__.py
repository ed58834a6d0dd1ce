"""Train, edit, generate, measure."""

from __future__ import annotations

from ._benchmark import Benchmark, benchmark
from ._confound_report import confound_report
from ._counterfactual_axioms import counterfactual_axioms
from ._counterfactual_error import counterfactual_error
from ._distances import distances
from ._dose_response import dose_response
from ._edit import edit
from ._edit_controls import edit_controls
from ._edit_effects import edit_effects
from ._evaluate import evaluate
from ._fidelity import fidelity
from ._fit_rival import fit_rival
from ._generate import generate
from ._identity import identity
from ._morphology import morphology
from ._rank_genes_effect import rank_genes_effect
from ._replay import replay
from ._train_clip import train_clip
from ._train_editor import train_editor
from ._train_gan import train_gan
from ._train_inversion import train_inversion
from ._transition import transition
from ._write_cells import write_cells
from ._write_region import write_region

__all__ = [
    "Benchmark",
    "benchmark",
    "confound_report",
    "counterfactual_axioms",
    "counterfactual_error",
    "distances",
    "dose_response",
    "edit",
    "edit_controls",
    "edit_effects",
    "evaluate",
    "fidelity",
    "fit_rival",
    "generate",
    "identity",
    "morphology",
    "rank_genes_effect",
    "replay",
    "train_clip",
    "train_editor",
    "train_gan",
    "train_inversion",
    "transition",
    "write_cells",
    "write_region",
]
