"""What every edit shares: the request, the pictures, the report, the measures."""

from __future__ import annotations

from ._gradients import Differentiable, TorchFeature, integrated_gradients, torch_feature
from ._images import Drawing, check_scale, draw_images, find_model, make_images, model_record, say_floor, write_images
from ._latent import learn_latent, show_latent, shown_layer
from ._measure import Cells, Features, Measure, pick_cells
from ._pictures import draw_cells, pictures
from ._plan import Direction
from ._request import Edit, EditRequest, number, plain
from ._run_edit import run_edit

__all__ = [
    "Cells",
    "Differentiable",
    "Direction",
    "Drawing",
    "Edit",
    "EditRequest",
    "Features",
    "Measure",
    "TorchFeature",
    "check_scale",
    "draw_cells",
    "draw_images",
    "find_model",
    "integrated_gradients",
    "learn_latent",
    "make_images",
    "model_record",
    "number",
    "pick_cells",
    "pictures",
    "plain",
    "run_edit",
    "say_floor",
    "show_latent",
    "shown_layer",
    "torch_feature",
    "write_images",
]
