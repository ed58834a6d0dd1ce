"""Drawing one field of view: its cells, and what optics and camera make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._canvas import finish, smooth
from ._config import CHANNELS
from ._draw_full import FullField
from ._draw_plain import PlainField
from ._slide_effects import slide_effects

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ._config import TissueConfig


def draw_fov(
    config: TissueConfig, causes: pd.DataFrame, slide: int, fov: int, channels: Sequence[str], *, noise: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw a field of view (``fov`` from 1) from its cells' ``causes``.

    Returns
    -------
    Images (c x side x side, uint16; float32 without noise), the cell of each pixel (0: none), the nucleus of each pixel (0:
    none), and the distance to the cell's border (px). Cells are numbered as ``causes`` has them, from 1.
    """
    side, px = config.side, config.pixel_size
    cells = (FullField if config.detail == "full" else PlainField)(config, causes, slide, fov)
    own = slide_effects(config).iloc[slide]
    brightness, blur = float(own["brightness"]), config.blur * float(own["blur"])
    offset = config.offset * float(own["background"])
    out = np.empty((len(channels), side, side), np.uint16 if noise else np.float32)
    for at, name in enumerate(channels):
        which = CHANNELS.index(name)
        image = cells.stain(which)
        if blur > 0:
            smooth(image, max(blur / px, 0.3))
        rng = np.random.Generator(np.random.SFC64([config.seed, slide, fov, 6, which]))
        haze = 1.0 + 0.1 * rng.standard_normal()
        if noise:
            grain = rng.standard_normal((side, side), dtype=np.float32)
            finish(image, haze, brightness, offset, config.gain, config.read_noise, grain, 0.5, out[at])
        else:
            finish(image, haze, brightness, offset, 0.0, 0.0, np.zeros_like(image), 0.0, out[at])
    return out, cells.owner, cells.nucleus, cells.border
