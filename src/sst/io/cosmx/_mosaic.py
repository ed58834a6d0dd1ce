"""Fields of view laid side by side as one lazy picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import dask.array as da

_CHUNK = 4096


def mosaic(
    parts: list[da.Array], corners: list[tuple[int, int]], shape: tuple[int, int], chunk: int = _CHUNK
) -> da.Array:
    """Paste pictures into one canvas, lazily.

    Parameters
    ----------
    parts
        Pictures ``(c, y, x)`` of one type and number of channels.
    corners
        Row and column of each one's upper left pixel; where two overlap the later one is seen.
    shape
        Rows and columns of the canvas.
    chunk
        Pixels of a chunk's side.

    Returns
    -------
    ``(c, y, x)``, zero where no picture lies, one chunk a channel and ``chunk x chunk`` block. A chunk reads only
    the pictures that it meets.
    """
    import dask.array as da
    from dask import delayed

    channels, dtype = parts[0].shape[0], parts[0].dtype
    paste = delayed(_paste, pure=True)
    planes = []
    for c in range(channels):
        rows = []
        for y in range(0, shape[0], chunk):
            row = []
            for x in range(0, shape[1], chunk):
                size = (min(chunk, shape[0] - y), min(chunk, shape[1] - x))
                pieces, places = [], []
                for part, (top, left) in zip(parts, corners, strict=True):
                    y0, y1 = max(top, y), min(top + part.shape[1], y + size[0])
                    x0, x1 = max(left, x), min(left + part.shape[2], x + size[1])
                    if y0 < y1 and x0 < x1:
                        pieces.append(part[c, y0 - top : y1 - top, x0 - left : x1 - left])
                        places.append((y0 - y, x0 - x))
                if pieces:
                    block = da.from_delayed(paste(size, dtype, places, *pieces), size, dtype=dtype)
                else:
                    block = da.zeros(size, dtype=dtype, chunks=size)
                row.append(block)
            rows.append(row)
        planes.append(da.block(rows))
    return da.stack(planes)


def _paste(size: tuple[int, int], dtype: np.dtype, places: list[tuple[int, int]], *pieces: np.ndarray) -> np.ndarray:
    canvas = np.zeros(size, dtype=dtype)
    for (y, x), piece in zip(places, pieces, strict=True):
        canvas[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
    return canvas
