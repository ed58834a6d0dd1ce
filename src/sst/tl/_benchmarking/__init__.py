"""The benchmark's parts: cells with their true counterfactuals, methods, what is measured, and who does what."""

from __future__ import annotations

from ._cells import BenchmarkCells, make_cells
from ._measure import GAP, NO_EDIT, Measured, MeasuredSet, headline, leaderboard
from ._methods import METHODS, Limit
from ._work import Plan, Work, helpers

__all__ = [
    "BenchmarkCells",
    "GAP",
    "Limit",
    "METHODS",
    "Measured",
    "MeasuredSet",
    "NO_EDIT",
    "Plan",
    "Work",
    "headline",
    "helpers",
    "leaderboard",
    "make_cells",
]
