"""Networks."""

from __future__ import annotations

from ._discriminator import Discriminator
from ._generator import Generator
from ._layers import EqualLinear, EqualMLP, ExpressionTransform, leaky_relu, pixel_norm

__all__ = ["Discriminator", "EqualLinear", "EqualMLP", "ExpressionTransform", "Generator", "leaky_relu", "pixel_norm"]
