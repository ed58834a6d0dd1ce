"""The tissue whose causes are known."""

from __future__ import annotations

from ._config import CHANNELS, MARKER_CHANNEL, NUCLEUS_CHANNEL, TissueConfig
from ._fov import FieldOfView
from ._simulate_tissue import simulate_tissue
from ._tissue import Tissue

__all__ = ["CHANNELS", "FieldOfView", "MARKER_CHANNEL", "NUCLEUS_CHANNEL", "Tissue", "TissueConfig", "simulate_tissue"]
