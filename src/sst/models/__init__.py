"""Trained models: saved, loaded, applied."""

from __future__ import annotations

from ._base import Model
from ._clip import CLIP, build_towers
from ._drawing import cells_at_once, draw_options, image_before, images_name, inputs_of, starts_from
from ._editor import Editor, build_editor
from ._ensemble import Ensemble, mean_image, spread_of
from ._gan import GAN, build_generator
from ._halves import HALVES, forget_halves, half_of, split_rows, write_halves
from ._image_input import ImageInput
from ._inputs import ExpressionInput, cell_latents, cell_seeds
from ._inversion import Inversion, InversionRecord, build_encoder, effects_apart
from ._load import load
from ._registry import Registry
from ._resolve import named_folders, own_models, remember, resolve
from ._rivals import FeatureRegression, Morph, NearestCell
from ._weights import (
    distance_notes,
    make_distances,
    origin,
    resolve_distances,
    start_encoder,
    start_towers,
    weights_path,
)

__all__ = [
    "CLIP",
    "Editor",
    "Ensemble",
    "GAN",
    "Inversion",
    "Model",
    "Morph",
    "NearestCell",
    "Registry",
    "effects_apart",
    "load",
    "remember",
    "resolve",
    "weights_path",
]
