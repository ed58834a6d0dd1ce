"""Trained models: saved, loaded, applied."""

from __future__ import annotations

from ._base import Model
from ._gan import GAN
from ._load import load
from ._registry import Registry
from ._resolve import remember, resolve

__all__ = ["GAN", "Model", "Registry", "load", "remember", "resolve"]
