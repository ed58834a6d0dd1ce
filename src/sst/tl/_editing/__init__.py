"""What every edit shares: the plan, the pictures, the report, the measures."""

from __future__ import annotations

from ._gradients import Differentiable, TorchFeature, integrated_gradients, torch_feature
from ._images import find_model, make_images, model_record
from ._measure import Cells, Features, Measure, pick_cells
from ._plan import Direction, plan_directions
from ._report import edit_report, edit_rows, expression_hash

__all__ = [
    "Cells",
    "Differentiable",
    "Direction",
    "Features",
    "Measure",
    "TorchFeature",
    "edit_report",
    "edit_rows",
    "expression_hash",
    "find_model",
    "integrated_gradients",
    "make_images",
    "model_record",
    "pick_cells",
    "plan_directions",
    "torch_feature",
]
