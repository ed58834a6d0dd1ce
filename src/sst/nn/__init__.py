"""Networks."""

from __future__ import annotations

from ._clip import ClipTowers, ProjectionHead, ResNet50Backbone, SmallBackbone, adapt_first_convolution
from ._discriminator import Discriminator
from ._editor import CellEditor, Effects
from ._encoder import PixelEncoder
from ._generator import Generator
from ._heads import StyleHeads
from ._inversion import Code, base_code, decode, fade_factor
from ._layers import EqualLinear, EqualMLP, ExpressionTransform, leaky_relu, pixel_norm, read_beyond
from ._perceptual import CosineDistance, LpipsDistance, MapDistance
from ._processes import gather_rows
from ._traits import AROUND, TRAITS, meaningful, traits

__all__ = [
    "AROUND",
    "CellEditor",
    "ClipTowers",
    "Code",
    "CosineDistance",
    "Discriminator",
    "Effects",
    "EqualLinear",
    "EqualMLP",
    "ExpressionTransform",
    "Generator",
    "LpipsDistance",
    "MapDistance",
    "PixelEncoder",
    "ProjectionHead",
    "ResNet50Backbone",
    "SmallBackbone",
    "StyleHeads",
    "TRAITS",
    "base_code",
    "decode",
    "fade_factor",
    "gather_rows",
    "leaky_relu",
    "meaningful",
    "pixel_norm",
    "read_beyond",
    "traits",
]
