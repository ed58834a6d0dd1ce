"""Nuclei by Cellpose: small crops laid out as one picture, so that a thousand go through in few calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sst._settings import settings

_SIDE = 1024  # of a mosaic, about


class CellposeMosaic:
    """Masks of the nucleus at the centre of each crop.

    Each crop is scaled by its own 1st and 99th percentile and laid on a black ground with a gap around it; a mask that
    crosses a gap is cut at the crop's edge.

    Parameters
    ----------
    weights
        Path of Cellpose 4 weights, or ``"download"``: the package fetches its built-in model.
    diameter
        Of a nucleus, in pixels of the crop.
    device
        A torch device; ``None``: the setting's.

    Raises
    ------
    FileNotFoundError
        No such weights.
    """

    def __init__(self, weights: str | Path, *, diameter: float, device: str | None = None) -> None:
        self.diameter = diameter
        if str(weights) != "download" and not Path(weights).is_file():
            msg = f"weights={str(weights)!r}: no such file. Give the path of Cellpose weights, or 'download'."
            raise FileNotFoundError(msg)
        self._model = self._load(weights, device)

    @staticmethod
    def _load(weights: str | Path, device: str | None) -> Any:
        from cellpose import models

        where = settings.torch_device(device)
        # half the memory on accelerators; on a CPU bfloat16 can be slower than float32
        options: dict[str, Any] = {"device": where, "use_bfloat16": where.type != "cpu"}
        if str(weights) != "download":
            options["pretrained_model"] = str(weights)
        return models.CellposeModel(**options)

    def __call__(self, stain: np.ndarray, reach: float = 0.25) -> np.ndarray:
        """Masks n x h x w (bool) of crops n x h x w of the nuclear stain; empty where nothing was found."""
        n, h, w = stain.shape
        gap = max(4, min(h, w) // 8)
        columns, rows = max(1, _SIDE // (w + gap)), max(1, _SIDE // (h + gap))
        out = np.zeros((n, h, w), bool)
        for start in range(0, n, columns * rows):
            part = stain[start : start + columns * rows]
            high = -(-len(part) // columns)
            wide = min(columns, len(part))
            mosaic = np.zeros((high * (h + gap) + gap, wide * (w + gap) + gap), np.float32)
            corners = [(gap + (k // columns) * (h + gap), gap + (k % columns) * (w + gap)) for k in range(len(part))]
            for crop, (y, x) in zip(part, corners, strict=True):
                mosaic[y : y + h, x : x + w] = _scaled(crop)
            labels = np.asarray(
                self._model.eval(mosaic, diameter=self.diameter, normalize=False, max_size_fraction=1.0)[0]
            ).reshape(mosaic.shape)
            for k, (y, x) in enumerate(corners):
                out[start + k] = central(labels[y : y + h, x : x + w], reach)
        return out


def central(labels: np.ndarray, reach: float) -> np.ndarray:
    """The label at the centre, or the nearest within ``reach`` of the side; all False if there is none."""
    h, w = labels.shape
    y, x = np.nonzero(labels)
    if not len(y):
        return np.zeros((h, w), bool)
    far = np.hypot(y - (h - 1) / 2, x - (w - 1) / 2)
    nearest = int(far.argmin())
    if far[nearest] > reach * min(h, w):
        return np.zeros((h, w), bool)
    return labels == labels[y[nearest], x[nearest]]


def _scaled(crop: np.ndarray) -> np.ndarray:
    crop = np.nan_to_num(crop.astype(np.float32))
    low, high = np.percentile(crop, [1, 99])
    return np.zeros_like(crop) if high <= low else np.clip((crop - low) / (high - low), 0, 1)
