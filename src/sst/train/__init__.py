"""Training: configurations, losses, one loop."""

from __future__ import annotations

from ._checkpoint import Checkpoints
from ._config import (
    DataConfig,
    DiscriminatorConfig,
    FitConfig,
    GANConfig,
    GeneratorConfig,
    LossConfig,
    OptimizerConfig,
    from_dict,
    to_dict,
)
from ._data import ArraySource, Batch, Cells, Draws, Expression, ImageSource, Loader, to_uint8, to_unit
from ._ema import EMA
from ._fit import FitResult, fit
from ._phases import Phase, Task
from ._watch import TrainingDivergedError, read_history

__all__ = [
    "EMA",
    "ArraySource",
    "Batch",
    "Cells",
    "Checkpoints",
    "DataConfig",
    "DiscriminatorConfig",
    "Draws",
    "Expression",
    "FitConfig",
    "FitResult",
    "GANConfig",
    "GeneratorConfig",
    "ImageSource",
    "Loader",
    "LossConfig",
    "OptimizerConfig",
    "Phase",
    "Task",
    "TrainingDivergedError",
    "fit",
    "from_dict",
    "read_history",
    "to_dict",
    "to_uint8",
    "to_unit",
]
