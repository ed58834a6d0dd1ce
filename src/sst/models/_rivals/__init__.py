"""Rivals: what needs no generator. A model that is not better than these has learnt nothing that they do not know."""

from __future__ import annotations

from ._morph import Morph, MorphConfig
from ._nearest import NearestCell, NearestConfig
from ._regression import FeatureRegression, RegressionConfig

__all__ = ["FeatureRegression", "Morph", "MorphConfig", "NearestCell", "NearestConfig", "RegressionConfig"]
