"""A rival is a handful of arrays: saved, loaded and hashed as the networks of other models are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn

from sst.models._base import Model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sst.models._registry import Registry


class Rival(Model):
    """Arrays under names; they stay on the CPU.

    Parameters
    ----------
    registry
        What it was fitted on.
    config
        Frozen dataclass.
    arrays
        By name.
    """

    def __init__(self, registry: Registry, config: Any, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(registry, config)
        self._arrays = nn.Module()
        for name, value in arrays.items():
            self._arrays.register_buffer(name, torch.as_tensor(np.ascontiguousarray(value)))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The arrays, as one network without parameters."""
        return {"arrays": self._arrays}

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    def to(self, device: str | torch.device | None) -> Self:
        """Stay on the CPU."""
        del device
        return self

    def array(self, name: str) -> np.ndarray:
        """An array, by name."""
        return self._arrays.get_buffer(name).numpy()


def standardised(counts: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Standardised log(1 + counts), float32, n x p."""
    return ((np.log1p(counts) - mean) / scale).astype(np.float32)


def log_moments(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of log(1 + counts) of each gene; 1 for a gene that never varies."""
    logged = np.log1p(counts.astype(np.float64))
    scale = logged.std(axis=0)
    return logged.mean(axis=0).astype(np.float32), np.where(scale > 1e-6, scale, 1.0).astype(np.float32)
