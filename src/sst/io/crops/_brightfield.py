"""Whether an image is stained tissue in transmitted light, by its channels and by how light it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLOURS = (("r", "g", "b"), ("red", "green", "blue"))
_LIGHT = 100  # of 255: fluorescence on a dark ground has a lower median, H&E of dense tissue lies above it
_CELLS, _AROUND = 16, 32  # cells looked at, and px on either side of each


def looks_brightfield(
    image: Any, channels: Sequence[int], names: Sequence[str], centres: np.ndarray, *, wanted: bool | None
) -> bool:
    """What ``wanted`` says, or (``None``) what the pixels around some of the cells do.

    Parameters
    ----------
    image
        c x y x x, lazy or not.
    channels, names
        Indices and names of the channels that are cut.
    centres
        n x 2 (x, y) in px; NaN where there is none.
    wanted
        As the caller said.

    Raises
    ------
    ValueError
        It is asked for, and the channels are not three of 8 bit.
    """
    three = len(channels) == 3 and np.dtype(image.dtype) == np.uint8
    if wanted and not three:
        msg = (
            f"brightfield=True: three 8-bit channels (red, green, blue) are needed, the crops have {list(names)}, "
            f"{image.dtype}."
        )
        raise ValueError(msg)
    if wanted is not None:
        return wanted
    if not three or tuple(str(n).lower() for n in names) not in _COLOURS:
        return False
    known = centres[np.isfinite(centres).all(axis=1)].astype(np.int64)
    some = known[np.linspace(0, len(known) - 1, min(_CELLS, len(known))).astype(int)]
    height, width = image.shape[1:]
    values = []
    for x, y in some:
        rows, columns = (slice(max(v - _AROUND, 0), v + _AROUND) for v in (y, x))
        if 0 <= x < width and 0 <= y < height:
            values.append(np.asarray(image[:, rows, columns])[list(channels)].ravel())
    return bool(values) and float(np.median(np.concatenate(values))) > _LIGHT
