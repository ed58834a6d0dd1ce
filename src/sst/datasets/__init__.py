"""Public data on demand, and a simulator of tissue."""

from __future__ import annotations

from ._cosmx_liver import CosMxLiver, cosmx_liver
from ._fetch import fetch
from ._registry import REGISTRY, PublicFile
from ._xenium_lung import XeniumLung, xenium_lung
from .simulator import CHANNELS, MARKER_CHANNEL, NUCLEUS_CHANNEL, FieldOfView, Tissue, TissueConfig, simulate_tissue

__all__ = [
    "CHANNELS",
    "CosMxLiver",
    "FieldOfView",
    "MARKER_CHANNEL",
    "NUCLEUS_CHANNEL",
    "PublicFile",
    "REGISTRY",
    "Tissue",
    "TissueConfig",
    "XeniumLung",
    "cosmx_liver",
    "fetch",
    "simulate_tissue",
    "xenium_lung",
]
