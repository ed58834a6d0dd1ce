"""The paper's evaluation: what it consists of, and how each condition is made and measured."""

from __future__ import annotations

from ._evaluation import Evaluation, EvaluationOptions
from ._plan import CONTROLS, Folder

__all__ = ["CONTROLS", "Evaluation", "EvaluationOptions", "Folder"]
