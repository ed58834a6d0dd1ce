"""The dtype that a network computes in."""

from __future__ import annotations

from typing import Literal

import torch

from sst._validate import check_choice

ComputeDtype = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def compute_dtype(setting: ComputeDtype, parameter: torch.Tensor) -> torch.dtype:
    """Dtype of the feature maps: ``"auto"`` that of ``torch.autocast`` where it is on, else (as ``"fp32"``) the parameters' own."""
    check_choice("compute_dtype", setting, ("auto", "fp32", "bf16", "fp16"))
    device = parameter.device.type
    if setting == "auto" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return _DTYPES.get(setting, parameter.dtype)


def full_precision(device: torch.device) -> torch.autocast:
    """Context without autocast: inside the networks every operator is given the dtype that it is meant to have."""
    return torch.autocast(device.type, enabled=False)
