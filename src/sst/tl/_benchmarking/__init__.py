"""The benchmark's parts: cells with their true counterfactuals, methods, and what is measured."""

from __future__ import annotations

from ._cells import BenchmarkCells, make_cells
from ._measure import Measured, leaderboard, measure_set
from ._methods import METHODS, Fitted, Limit, features_of, fit_method

__all__ = [
    "BenchmarkCells",
    "Fitted",
    "Limit",
    "METHODS",
    "Measured",
    "features_of",
    "fit_method",
    "leaderboard",
    "make_cells",
    "measure_set",
]
