"""What is cut around each cell, and what is counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WindowOptions:
    """What is cut, and what is counted: the arguments of :func:`sst.pp.crop_cells`.

    Attributes
    ----------
    size, output_size
        Edge of a window in px of the image, and of its crop.
    border
        Windows nearer than this to the low edges are left out, px.
    pad
        Keep windows that leave the image.
    windowed
        Count the transcripts in the windows.
    min_qv, assigned_only
        Which transcripts count.
    """

    size: int
    output_size: int
    border: int = 0
    pad: bool = False
    windowed: bool = True
    min_qv: float = 20
    assigned_only: bool = False
