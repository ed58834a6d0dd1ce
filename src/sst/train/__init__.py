"""Training: configurations, losses, one loop."""

from __future__ import annotations

from ._checkpoint import Checkpoints, load_average
from ._clip import clip_task
from ._clip_config import CLIPConfig, TowersConfig
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
from ._draws import Batch, Draws, to_uint8, to_unit, turn
from ._editor import editor_task
from ._editor_config import EditorConfig, EditorLossConfig, EditorSizes
from ._fit import CLOCKS, FitResult, fit
from ._gan import gan_task, gan_warnings
from ._inversion import encode, inversion_task
from ._inversion_config import EncoderConfig, InversionConfig, InversionLossConfig
from ._inversion_loss import inversion_loss
from ._launch import check_devices, is_launched, launch, should_launch, worker
from ._loader import Cells, Expression, free_memory
from ._memory import keep_freed_memory
from ._phases import Phase, Task
from ._response import fit_response, some_crops
from ._watch import TrainingDivergedError, read_history

__all__ = [
    "Batch",
    "CLIPConfig",
    "CLOCKS",
    "Cells",
    "Checkpoints",
    "DataConfig",
    "DiscriminatorConfig",
    "Draws",
    "EditorConfig",
    "EditorLossConfig",
    "EditorSizes",
    "EncoderConfig",
    "Expression",
    "FitConfig",
    "FitResult",
    "GANConfig",
    "GeneratorConfig",
    "InversionConfig",
    "InversionLossConfig",
    "LossConfig",
    "OptimizerConfig",
    "Phase",
    "Task",
    "TowersConfig",
    "TrainingDivergedError",
    "check_devices",
    "clip_task",
    "editor_task",
    "encode",
    "fit",
    "fit_response",
    "free_memory",
    "from_dict",
    "gan_task",
    "gan_warnings",
    "inversion_loss",
    "inversion_task",
    "is_launched",
    "keep_freed_memory",
    "launch",
    "load_average",
    "read_history",
    "should_launch",
    "some_crops",
    "to_dict",
    "to_uint8",
    "to_unit",
    "turn",
    "worker",
]
