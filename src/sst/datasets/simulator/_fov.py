"""One field of view of a simulated slide, drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class FieldOfView:
    """What the microscope and the chemistry give for one field of view.

    Attributes
    ----------
    causes
        Rows of ``Slides.causes`` of its cells.
    channels
        Names of the planes of ``images``.
    images
        c x side x side, uint16.
    labels
        side x side, int32: cell of each pixel (``causes["cell"]``), 0 for none.
    compartments
        side x side, uint8: 0 none, 1 nucleus, 2 membrane, 3 cytoplasm.
    transcripts
        ``x``, ``y`` (px), ``z`` (plane), ``gene`` (column of the panel), ``qv``, ``cell`` (label it lies on), ``source`` (the
        cell that made it; 0: ambient).
    """

    causes: pd.DataFrame
    channels: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    compartments: np.ndarray
    transcripts: dict[str, np.ndarray]
