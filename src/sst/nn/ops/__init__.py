"""Operators that genes drive: each beside its plain definition in words."""

from __future__ import annotations

from ._activate import activate
from ._fir import double_planes
from ._modulated import conv1x1, conv3x3, downsample, modulated_conv, to_image

__all__ = ["activate", "conv1x1", "conv3x3", "double_planes", "downsample", "modulated_conv", "to_image"]
