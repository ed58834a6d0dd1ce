"""Trained models: saved, loaded, applied."""

from __future__ import annotations

from ._base import Model
from ._clip import CLIP
from ._gan import GAN
from ._inversion import Inversion, effects_apart
from ._load import load
from ._registry import Registry
from ._resolve import remember, resolve
from ._weights import weights_path

__all__ = [
    "CLIP",
    "GAN",
    "Inversion",
    "Model",
    "Registry",
    "effects_apart",
    "load",
    "remember",
    "resolve",
    "weights_path",
]
